"""A DMS asked directly: what a shard serves."""
import os
import sys

from lib.bench import HERE, Missing

sys.path.insert(0, os.path.join(HERE, os.pardir, "tests", "proto"))


def open_region(endpoint):
    """Number, epoch and last sequence of a new region."""
    try:
        import edm_wire  # pylint: disable=import-outside-toplevel
    except ImportError as error:
        raise Missing(f"{error.name} is not installed for {sys.executable}") from None
    client = edm_wire.Client(endpoint, "bench")
    try:
        return client.open("bench")
    finally:
        client.close()


def seconds_of(bench):
    return 0.1 if bench.quick else 0.8


def ask(bench, operation, npages):
    """A new DMS, asked for so many pages at a time, or given them; what `requests` prints."""
    with bench.dms() as dms:
        region = map(str, open_region(dms.endpoint))
        return bench.run([bench.tool("requests"), "edm", dms.endpoint, *region, operation, str(npages),
                          str(seconds_of(bench))]).json()


def ask_nobody(bench, operation, npages, header_bytes):
    """The same over ZeroMQ alone."""
    return bench.run([bench.tool("requests"), "raw", str(header_bytes), operation, str(npages),
                      str(seconds_of(bench))]).json()


def put_pages_per_s(bench, npages=64):
    return ask(bench, "put", npages)["requests_per_s"] * npages
