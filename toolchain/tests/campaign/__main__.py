"""`python -m toolchain.tests.campaign`: many faults, and a table of them."""

from __future__ import annotations

import argparse
import random
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from tabulate import tabulate

from toolchain.tests.campaign import benches, run
from toolchain.tests.campaign.acts import Product
from toolchain.tests.campaign.benches import Bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--x86-64", type=Path, help="a bundle for this host, in its build folder")
    parser.add_argument("--arm64", type=Path, help="a bundle for an emulated board")
    parser.add_argument("--count", type=int, default=1000, help="of faults in all")
    parser.add_argument("--boards", type=float, default=0.2, help="share of them on the board")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    on_board = round(asked.count * asked.boards) if asked.arm64 else 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.x86_64:
            _run(benches.server(folder / "s"), asked.x86_64, asked.count - on_board, asked.seed)
        if asked.arm64:
            _run(benches.board(folder / "b"), asked.arm64, on_board, asked.seed)


def _run(entered: AbstractContextManager[Bench], bundle: Path, count: int, seed: int) -> None:
    chance = random.Random(seed)
    with entered as bench:
        wanted = run.drawn(bench.kind, count, chance)
        report = run.campaign(bench, Product.of_build(bundle), wanted, chance, bench.folder)
    rows = [(kind, ended, n) for (kind, ended), n in sorted(report.counts.items())]
    print(tabulate(rows, headers=["fault", "the client", "times"]))
    states = ", ".join(f"{n} times {state}" for state, n in sorted(report.state.items()))
    print(f"{bench.kind}: {report.total} faults in {report.seconds:.0f} s; afterwards: {states}\n")


if __name__ == "__main__":
    main()
