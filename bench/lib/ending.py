"""Signals that end us: everything goes in order, programs, swap, cgroups and files."""
import contextlib
import signal
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_state = {"held": 0, "number": None}


def listen():
    for each in SIGNALS:
        signal.signal(each, _come)


def _come(number, _):
    # The first is enough. While things are put away there is nothing that another could hasten.
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    _state["number"] = number
    if not _state["held"]:
        _end()


def _end():
    number, _state["number"] = _state["number"], None
    print(f"bench: ended by {signal.Signals(number).name}", file=sys.stderr, flush=True)
    sys.exit(128 + number)


@contextlib.contextmanager
def undisturbed():
    """They wait until this is done: nothing is half made, or half removed."""
    _state["held"] += 1
    try:
        yield
    finally:
        _state["held"] -= 1
        if not _state["held"] and _state["number"]:
            _end()
