#!/usr/bin/python3
"""merge_tests.py DIR PLAIN FUZZ ADDRESS THREAD

Makes DIR/all, from which one ctest run has the tests of four builds, each name with its build before
it: DIR/PLAIN (every test), DIR/FUZZ (those labelled fuzz), DIR/ADDRESS and DIR/THREAD (those labelled
unit, integration or fuzz and not long). Sanitizers are slow: their tests have more time.
"""
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SANITIZED_LABELS = {"unit", "integration", "fuzz"}
SLOWNESS = {"address": 3, "thread": 5}
DEFAULT_TIMEOUT_S = 120
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


def wanted(test, kind):
    labels = set(test["properties"].get("LABELS", []))
    if kind == "fuzz":
        return "fuzz" in labels
    return kind == "plain" or bool(labels & SANITIZED_LABELS) and "long" not in labels


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
    properties["TIMEOUT"] = properties.get("TIMEOUT", DEFAULT_TIMEOUT_S) * SLOWNESS.get(kind, 1)
    if kind in ENVIRONMENT:
        properties["ENVIRONMENT"] = ENVIRONMENT[kind] + properties.get("ENVIRONMENT", [])
    for fixture in ("DEPENDS", "FIXTURES_SETUP", "FIXTURES_CLEANUP", "FIXTURES_REQUIRED"):
        if fixture in properties:
            properties[fixture] = [f"{build}/{item}" for item in properties[fixture]]
    command = wrapper + test["command"]
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
