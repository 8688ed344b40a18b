#!/usr/bin/python3
"""tour.py: README.md's life of one message names every module of store/, gateway/flow/ and gateway/chat/, by its file or a
pattern (`store/reader*.c`; `gateway/` may be left out), and no file that is not there (check_readme)."""
import fnmatch
import glob
import os
import re
import sys

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
FOLDERS = ("store", "gateway/flow", "gateway/chat")


def main():
    readme = open("README.md", encoding="utf-8").read()
    tour = re.search("^## The life of one message.*?(?=^## )", readme, re.S | re.M)
    if tour is None:
        sys.exit("README.md: no tour (## The life of one message)")
    named = re.findall(r"`([a-z0-9_/*]+\.[ch])`", tour.group(0))
    patterns = named + ["gateway/" + name for name in named]
    modules = [path for folder in FOLDERS for path in sorted(glob.glob(folder + "/*.c"))]
    wrong = [f"README.md: the tour does not name {path}" for path in modules
             if not any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)]
    wrong += [f"README.md: the tour names {name}: there is no such file" for name in named
              if not glob.glob(name) and not glob.glob("gateway/" + name)]
    print("\n".join(wrong) if wrong else f"{len(modules)} modules")
    sys.exit(1 if wrong or not modules else 0)


main()
