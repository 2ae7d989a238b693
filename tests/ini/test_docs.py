#!/usr/bin/python3
"""test_docs.py EDM DOCS: --help, the man page and the sample ini files say the same."""
import re
import subprocess
import sys
import unittest

EDM, DOCS = sys.argv[1:3]


def help_text(*words):
    return subprocess.run([EDM, *words, "--help"], check=True, stdout=subprocess.PIPE,
                          text=True).stdout


def man_source():
    with open(f"{DOCS}/edm.1", encoding="utf-8") as file:
        return file.read()


def options_of_help():
    return sorted(re.findall(r"^  (--[a-z-]+)", help_text(), re.MULTILINE))


def options_of_man():
    return sorted("-" + name for name in
                  re.findall(r"^\.It Fl (-[a-z-]+)", man_source(), re.MULTILINE))


def table_of_help():
    """(section, key) -> default."""
    rows = re.findall(r"^        \[(\w+)\] (\w+): .*\n        default: (.*)$", help_text(), re.MULTILINE)
    return {(section, key): default for section, key, default in rows}


def table_of_sample(name):
    """(section, key) -> value, or None where the line is commented out."""
    section, table = None, {}
    with open(f"{DOCS}/{name}", encoding="utf-8") as file:
        for line in file:
            if found := re.fullmatch(r"\[(\w+)\]\n", line):
                section = found[1]
            elif found := re.fullmatch(r"(;?)(\w+) = (.*)\n", line):
                table[section, found[2]] = None if found[1] else found[3]
    return table


class Docs(unittest.TestCase):
    def test_help_has_options(self):
        self.assertGreater(len(options_of_help()), 15)

    def test_man_page_has_the_options_of_help(self):
        # --mode stands in the usage, above the list.
        self.assertEqual(sorted(options_of_help() + ["--mode"]), options_of_man())

    def test_help_of_a_mode(self):
        both = help_text()
        client, dms = help_text("--mode=client"), help_text("--mode", "dms")
        self.assertIn("--local", client)
        self.assertNotIn("--shards", client)
        self.assertIn("--shards", dms)
        self.assertNotIn("--local", dms)
        check = help_text("--mode=check")
        self.assertIn("--repair", check)
        self.assertIn("--data", check)
        self.assertNotIn("--shards", check)
        self.assertNotIn("--repair", dms)
        for option in options_of_help():
            self.assertIn(option, both)
            self.assertTrue(option in client or option in dms or option in check, option)

    def test_defaults_in_man_page(self):
        words = re.sub(r"\s+", " ", re.sub(r"^\.\w\w ", "", man_source(), flags=re.MULTILINE))
        for (section, key), default in table_of_help().items():
            if " " not in default and default != "none":
                name = ("log-" if section == "log" else "") + key.replace("_", "-")
                at = words.index(f"Fl -{name} Ns") if name != "start-addr" else words.index(default)
                self.assertIn(default, words[at:at + 700], key)

    def test_samples_have_every_key_and_its_default(self):
        samples = table_of_sample("edm-client.ini")
        dms = table_of_sample("edm-dms.ini")
        for row in samples.keys() & dms.keys():
            self.assertEqual(samples[row], dms[row])
        samples.update(dms)
        rows = table_of_help()
        self.assertEqual(samples.keys(), rows.keys())
        for row, value in samples.items():
            if value is None:
                self.assertTrue(" " in rows[row] or rows[row] == "none", row)
            else:
                self.assertEqual(value, rows[row], row)

    def test_man_page_is_sound(self):
        done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", f"{DOCS}/edm.1"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, ""))


unittest.main(argv=sys.argv[:1])
