"""Look at a history: python -m toolchain.history runs."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Sequence

from tabulate import tabulate

from toolchain import errors
from toolchain.history import History, addresses, gate, tables


def parser() -> argparse.ArgumentParser:
    own = argparse.ArgumentParser(prog="python -m toolchain.history", description=__doc__)
    own.add_argument(
        "--history",
        default=addresses.DEFAULT,
        metavar="URL",
        help=f"{addresses.FORMS} (%(default)s)",
    )
    verbs = own.add_subparsers(dest="verb", required=True, metavar="VERB")
    runs = verbs.add_parser("runs", help="the runs, the newest last")
    runs.add_argument("--limit", type=int, default=20)
    show = verbs.add_parser("show", help="the measurements of a run")
    show.add_argument("run")
    series = verbs.add_parser("series", help="one measurement over the runs")
    series.add_argument("key")
    series.add_argument("--pool")
    series.add_argument("--limit", type=int, default=30)
    judged = verbs.add_parser("gate", help="judge a run against those before it; 1 if it is worse")
    judged.add_argument("run")
    accepted = verbs.add_parser("accept", help="make a worse measurement the new baseline")
    accepted.add_argument("run")
    accepted.add_argument("key")
    verbs.add_parser("migrate", help="make the tables, or bring them to this version")
    return own


def main(words: Sequence[str] | None = None) -> None:
    asked = parser().parse_args(words)
    with errors.shown(), History(asked.history, create=asked.verb == "migrate") as history:
        match asked.verb:
            case "runs":
                _print(tables.runs(history.runs(asked.limit)))
            case "show":
                _print(tables.rows(history.rows(history.run(asked.run).id)))
            case "series":
                rows = history.series(asked.key, asked.pool, limit=asked.limit)
                if not rows:
                    raise errors.UserError(
                        f"'{asked.key}' was never measured",
                        hint=errors.nearest(asked.key, history.keys()),
                    )
                _print(tables.rows(rows))
            case "gate":
                _gate(history, asked.run)
            case "accept":
                gate.accept(history, asked.run, asked.key, getpass.getuser())
            case "migrate":
                print(f"{history.where}: {'done' if history.migrated else 'nothing to do'}")


def _gate(history: History, run: str) -> None:
    """As the nightly judged it, by the recipe's own tolerances; else by those of every recipe."""
    rows = history.rows(history.run(run).id)
    judged = {row.key: row.gate or gate.judge(history, run, row.key, row.row) for row in rows}
    _print(tables.judged(judged))
    if worse := [key for key, one in judged.items() if one.verdict == "regression"]:
        raise errors.CheckFailed(f"worse than before: {', '.join(worse)}", where=f"run {run}")


def _print(lines: list[dict[str, str]]) -> None:
    print(tabulate(lines, headers="keys", tablefmt="presto", disable_numparse=True))


if __name__ == "__main__":
    main()
