#!/usr/bin/python3
"""merge_tests.py DIR PLAIN FUZZ ADDRESS THREAD

Makes DIR/all, from which one ctest run has the tests of four builds, each name with its build before
it: DIR/PLAIN (every test), DIR/FUZZ (those labelled fuzz), DIR/ADDRESS and DIR/THREAD (those labelled
unit, integration or fuzz and not long; of DIR/THREAD not those of programs that cannot start a thread).
Sanitizers are slow: their tests have more time.

The PROCESSORS of DIR/all are quarters of a processor, so that tests which mostly wait can do so beside
others: run it with --parallel 4 * PROCESSORS.
"""
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SANITIZED_LABELS = {"unit", "integration", "fuzz"}
SLOWNESS = {"address": 3, "thread": 5}
DEFAULT_TIMEOUT_S = 120
QUARTERS = 4
HALF = 2  # for a fuzzer: it takes what others leave over
ENVIRONMENT = {
    "address": ["ASAN_OPTIONS=exitcode=99", "UBSAN_OPTIONS=print_stacktrace=1:exitcode=99"],
    "thread": [f"TSAN_OPTIONS=exitcode=99:halt_on_error=1:suppressions={HERE}/thread.supp"],
}


def fixed_addresses():
    """The sanitizers' shadow memory may collide with randomized addresses: do without them where
    the system allows that."""
    command = ["setarch", "--addr-no-randomize"]
    works = subprocess.run(command + ["true"], stderr=subprocess.DEVNULL, check=False)
    return command if works.returncode == 0 else []


def quote(text):
    mark = "="
    while "]" + mark + "]" in text:
        mark += "="
    return f"[{mark}[{text}]{mark}]"


def read_tests(build_dir):
    out = subprocess.run(["ctest", "--test-dir", build_dir, "--show-only=json-v1"], check=True,
                         stdout=subprocess.PIPE).stdout
    tests = json.loads(out)["tests"]
    for test in tests:
        test["properties"] = {p["name"]: p["value"] for p in test.get("properties", [])}
    return tests


def labels_of(test):
    return set(test["properties"].get("LABELS", []))


def starts_threads(program):
    """Whether a program of ours may: itself, or by libzmq. What is no program of ours, may."""
    symbols = subprocess.run(["nm", "--dynamic", "--undefined-only", program], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, check=False, text=True).stdout
    return "__tsan_" not in symbols or bool(re.search(r" (pthread_create|thrd_create|clone|zmq_)", symbols))


def wanted(test, kind):
    labels = labels_of(test)
    if kind == "fuzz":
        return "fuzz" in labels
    if kind == "plain":
        return True
    if not labels & SANITIZED_LABELS or "long" in labels:
        return False
    return kind != "thread" or "command" not in test or starts_threads(test["command"][0])


def put_weight(test):
    """How much of the processors it takes, and when it comes: those that need all of them first."""
    labels, properties = labels_of(test), test["properties"]
    quarters = QUARTERS * int(properties.get("PROCESSORS", 1))
    if quarters > QUARTERS:
        cost = 3000
        if "shares" in labels:
            quarters -= HALF
    elif "fuzzer" in labels:
        quarters, cost = HALF, 2000
    elif "waits" in labels:
        quarters, cost = 1, 1000
    else:
        cost = 0
    properties["PROCESSORS"], properties["COST"] = quarters, cost


def text_of(value):
    if isinstance(value, bool):
        return "ON" if value else "OFF"
    if isinstance(value, list):
        return ";".join(str(item) for item in value)
    return str(value)


def put_test(out, build, kind, test, wrapper):
    if "command" not in test:
        sys.exit(f"merge_tests: {build}: {test['name']} has no command: is it built?")
    name = f"{build}/{test['name']}"
    properties = test["properties"]
    put_weight(test)
    properties["TIMEOUT"] = properties.get("TIMEOUT", DEFAULT_TIMEOUT_S) * SLOWNESS.get(kind, 1)
    if kind in ENVIRONMENT:
        properties["ENVIRONMENT"] = ENVIRONMENT[kind] + properties.get("ENVIRONMENT", [])
    for fixture in ("DEPENDS", "FIXTURES_SETUP", "FIXTURES_CLEANUP", "FIXTURES_REQUIRED"):
        if fixture in properties:
            properties[fixture] = [f"{build}/{item}" for item in properties[fixture]]
    command = wrapper + test["command"]
    if "fuzzer" in labels_of(test):
        command = ["nice", "-n", "5"] + command
    out.write(f"add_test({quote(name)} {' '.join(quote(word) for word in command)})\n")
    out.write(f"set_tests_properties({quote(name)} PROPERTIES\n")
    for key, value in properties.items():
        out.write(f"    {key} {quote(text_of(value))}\n")
    out.write(")\n")


def main():
    directory = sys.argv[1]
    builds = dict(zip(sys.argv[2:6], ("plain", "fuzz", "address", "thread")))
    wrapper = fixed_addresses()
    os.makedirs(os.path.join(directory, "all"), exist_ok=True)
    with open(os.path.join(directory, "all", "CTestTestfile.cmake"), "w", encoding="utf-8") as out:
        for build, kind in builds.items():
            for test in read_tests(os.path.join(directory, build)):
                if wanted(test, kind):
                    put_test(out, build, kind, test, wrapper if kind in SLOWNESS else [])


main()
