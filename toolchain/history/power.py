"""How often the gate raises a false alarm on times, and how small a slowdown it sees.

    python -m toolchain.history.power [RACE.json …] [--trials=N] [--seed=N] [--save=FILE]

Nights are drawn from recorded ones, in two levels: a recorded night of a program, then its rounds
with replacement. The first night under test is never the same recorded one as one of the baseline:
what differs between nights would be missed. It and the next two, drawn from all, are made slower by
so many per cent, and the gate judges the last with the defaults of a recipe. Without files: what
`nights.json` holds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tabulate import tabulate

from toolchain import errors
from toolchain.atomic import write_bytes
from toolchain.history import latency, recorded
from toolchain.history.recorded import Night
from toolchain.schema import Checks

SLOWDOWNS = (0.0, 0.01, 0.02, 0.05, 0.10, 0.20)
BASELINES = (1, 3, 10)  # nights
TRIALS = 2000
Rate = tuple[float, float, float]  # with its interval, at 95 %


def rate(
    programs: Mapping[str, Sequence[Night]],
    nights: int,
    slowdown: float,
    trials: int,
    chance: np.random.Generator,
) -> Rate:
    """How often the gate says `regression` on the third night that is slower by `slowdown`."""
    from scipy import stats

    factor = 1 + Checks().max_latency_increase
    names = sorted(programs)
    alarms = 0
    for _ in range(trials):
        taken = programs[names[int(chance.integers(len(names)))]]
        tested = int(chance.integers(len(taken)))
        others = [night for k, night in enumerate(taken) if k != tested]
        baseline = [
            _drawn(others[int(chance.integers(len(others)))], chance) for _ in range(nights)
        ]
        nexts = [taken[int(k)] for k in chance.integers(len(taken), size=latency.SUSPECTS - 1)]
        suspects = [_drawn(one, chance) * (1 + slowdown) for one in (taken[tested], *nexts)]
        beyond = all(latency.change([one], baseline).ratio > factor for one in suspects)
        alarms += beyond and latency.regressed(suspects, baseline)
    interval = stats.binomtest(alarms, trials).proportion_ci(method="wilson")
    return alarms / trials, float(interval.low), float(interval.high)


def table(programs: Mapping[str, Sequence[Night]], trials: int, seed: int) -> str:
    """Markdown: a line for each slowdown, a column for each size of the baseline."""
    chance = np.random.default_rng(seed)
    lines = [
        [_name(slow), *(_cell(rate(programs, n, slow, trials, chance)) for n in BASELINES)]
        for slow in SLOWDOWNS
    ]
    heads = ["slower by", *(f"{n} night{'s' * (n > 1)} before" for n in BASELINES)]
    return tabulate(lines, headers=heads, tablefmt="github", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m toolchain.history.power",
        description="False alarms and power of the regression gate, simulated on recorded races.",
    )
    parser.add_argument("race", nargs="*", type=Path, default=[recorded.KEPT])
    parser.add_argument("--trials", type=int, default=TRIALS, help="for each figure")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save", type=Path, help="keep what is needed of the races in this file")
    asked = parser.parse_args()
    with errors.shown():
        races = recorded.read(asked.race)
        programs = recorded.nights(races)
        if not programs:
            raise errors.UserError(
                "no program was raced undisturbed on two nights",
                hint="give race.json of more builds of the same recipe",
            )
        if asked.save:
            write_bytes(asked.save, recorded.thinned(races))
        print(table(programs, asked.trials, asked.seed))
        count = sum(map(len, programs.values()))
        print(
            f"\n{asked.trials} trials each, drawn from {count} recorded nights of "
            f"{len(programs)} programs; 95 % intervals in brackets."
        )


def _drawn(night: Night, chance: np.random.Generator) -> latency.Floats:
    """As many rounds of a night, with replacement."""
    return chance.choice(np.asarray(night, float), len(night))


def _name(slowdown: float) -> str:
    return f"{100 * slowdown:.0f} %" if slowdown else "0 % (false alarms)"


def _cell(rate: Rate) -> str:
    share, low, high = (100 * value for value in rate)
    return f"{share:.1f} % ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
