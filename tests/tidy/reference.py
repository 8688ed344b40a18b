#!/usr/bin/python3
"""reference.py: README.md's configuration and metrics tables, made from what the code says. `--write` puts them in; without it
the check fails where README.md says something else (check_readme)."""
import os
import re
import subprocess
import sys

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
ROOST = next((p for p in ("out/debug/bin/roost", "out/release/bin/roost") if os.path.exists(p)), None)


def configuration():
    """Rows from `roost check-config`: two comment lines (meaning; form; default), then key = value, under [section]."""
    text = subprocess.run([ROOST, "check-config"], check=True, capture_output=True, text=True).stdout
    rows, section, comments = [], "", []
    for line in text.splitlines():
        if line.startswith("#"):
            comments.append(line[1:].strip())
        elif line.startswith("["):
            section, comments = line.strip("[]"), []
        elif "=" in line:
            form, default = comments[-1].rsplit("; default: ", 1)
            meaning = " ".join(comments[:-1])
            rows.append(f"| `{section}.{line.split('=')[0].strip()}` | {default} | {meaning} ({form}) |")
            comments = []
    return ["| key | default | meaning (form; bounds) |", "|---|---|---|"] + rows


def metrics():
    text = open("core/metrics_list.h", encoding="utf-8").read()
    found = re.findall(r'METRIC\(\w+,\s*(\w+),\s*"(\w+)",\s*((?:"[^"]*"\s*)+)\)', text)
    rows = []
    for kind, name, helps in found:
        meaning = "".join(re.findall(r'"([^"]*)"', helps))
        rows.append(f"| `{name}` | {kind.lower()} | {meaning} |")
    return ["| metric | type | meaning |", "|---|---|---|"] + rows


def main():
    readme = open("README.md", encoding="utf-8").read()
    for name, rows in (("Configuration", configuration()), ("Metrics", metrics())):
        begin, end = f"<!-- {name.lower()}: begin -->", f"<!-- {name.lower()}: end -->"
        block = begin + "\n" + "\n".join(rows) + "\n" + end
        old = re.search(re.escape(begin) + ".*?" + re.escape(end), readme, re.S)
        if old is None:
            sys.exit(f"README.md: no block {begin} … {end}")
        if old.group(0) != block and "--write" not in sys.argv:
            sys.exit(f"README.md: {name} is not what the code says: run tests/tidy/reference.py --write")
        readme = readme.replace(old.group(0), block)
    if "--write" in sys.argv:
        open("README.md", "w", encoding="utf-8").write(readme)


if ROOST is None:
    sys.exit("build first: make BUILD=debug build")
main()
