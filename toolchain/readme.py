"""Puts a file between its markers in a document, so that figures there are never written by hand.

python -m toolchain.readme build/table.md README.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from toolchain import errors
from toolchain.atomic import write_bytes

BEGIN, END = "<!-- {name}: written by scripts/table -->", "<!-- end of {name} -->"


def replaced(document: str, name: str, content: str) -> str:
    """`document` with `content` between the markers of `name`."""
    begin, end = BEGIN.format(name=name), END.format(name=name)
    before, one, rest = document.partition(begin)
    _, two, after = rest.partition(end)
    if not (one and two):
        raise errors.UserError(f"holds no line '{begin}' with '{end}' below it")
    return f"{before}{begin}\n\n{content.strip()}\n\n{end}{after}"


def main(source: Path, document: Path) -> None:
    text = replaced(document.read_text("utf-8"), source.name, source.read_text("utf-8"))
    write_bytes(document, text.encode())


if __name__ == "__main__":
    with errors.shown():
        main(*map(Path, sys.argv[1:]))
