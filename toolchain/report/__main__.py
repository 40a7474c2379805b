"""python -m toolchain.report: a page of a run in the history, or of one build."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from toolchain import errors, report
from toolchain.history.addresses import DEFAULT

OUT = Path("build/report.html")


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m toolchain.report",
        description="One HTML file that needs no network: of a run in the history, or of a build.",
        epilog="Of a build: --summary=build/summary.json",
    )
    parser.add_argument(
        "--history",
        metavar="URL",
        help=f"file or address of the history (default: {DEFAULT})",
    )
    parser.add_argument("--run", metavar="ID", help="a run of it (default: the last one)")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="of one build, no history")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help=f"default: {OUT}")
    asked = parser.parse_args(words)
    if asked.summary and (asked.history or asked.run):
        parser.error("--summary is a page of one build: it takes neither --history nor --run")
    with errors.shown():
        if asked.summary:
            report.write_build(asked.summary, asked.out)
        else:
            _of_history(asked.history or DEFAULT, asked.run, asked.out)
        print(f"report: {asked.out}")


def _of_history(address: str, run: str | None, out: Path) -> None:
    from toolchain.history import History

    with History(address, create=False) as history:
        if run is None:
            runs = history.runs(1)
            if not runs:
                raise errors.UserError(
                    "holds no run yet", where=f"history {history.where}", hint="./scripts/nightly"
                )
            run = runs[0].id
        report.write(history, run, out)


if __name__ == "__main__":
    main(sys.argv[1:])
