"""What a race says: programs that took turns on one device, in rounds.

What slows a machine down comes and goes: programs that are measured one after the other differ for
reasons that are not theirs. In a round each program runs once, so that a ratio within a round holds
little of it; the rounds then tell how much is left. Kalibera and Jones, "Rigorous benchmarking in
reasonable time" (ISMM 2013), name the rounds what they are: the repetitions that an interval has to
be taken over, not the single inferences, which are not independent of each other.

    record = {"rounds": [{"runs": {"int8/xnnpack": {"wall_ns": […], "moved": []}, …}}, …], …}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

CONFIDENCE = 0.95
Record = Mapping[str, Any]


def key(variant: str, backend: str) -> str:
    """How a race calls a program."""
    return f"{variant}/{backend}"


def calm(rounds: Sequence[Record]) -> list[Record]:
    """The rounds in which no program was disturbed."""
    return [one for one in rounds if not any(run["moved"] for run in one["runs"].values())]


def counted(record: Record) -> list[Record]:
    """The rounds that figures are taken from: the calm ones, or all if these are too few."""
    quiet = calm(record["rounds"])
    return quiet if len(quiet) >= record["wanted_rounds"] else list(record["rounds"])


def wall_ns(record: Record, program: str) -> list[int]:
    """All samples of a program, in ns, of the rounds that count."""
    return [ns for one in counted(record) for ns in one["runs"][program]["wall_ns"]]


def moved(record: Record) -> list[str]:
    """Why the times are not to be trusted; empty if they are."""
    rounds = record["rounds"]
    if len(calm(rounds)) >= record["wanted_rounds"]:
        return []
    reasons = [why for one in rounds for run in one["runs"].values() for why in run["moved"]]
    few = list(dict.fromkeys(reasons))[:3]
    return [f"disturbed in {len(rounds) - len(calm(rounds))} of {len(rounds)} rounds", *few]


def ratio(record: Record, slower: str, faster: str) -> dict[str, Any]:
    """p50 of `slower` over p50 of `faster`: the geometric mean over the rounds, and its interval.

    low, high: Student's t interval of the mean logarithm, at `CONFIDENCE`; None of a single round.
    """
    from scipy import stats

    logs = np.array(
        [
            math.log(_median(one["runs"][slower]) / _median(one["runs"][faster]))
            for one in counted(record)
        ]
    )
    mean = float(logs.mean())
    if len(logs) < 2:
        return {"ratio": math.exp(mean), "low": None, "high": None, "rounds": 1}
    error = float(logs.std(ddof=1)) / math.sqrt(len(logs))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(logs) - 1)) * error
    return {
        "ratio": math.exp(mean),
        "low": math.exp(mean - half),
        "high": math.exp(mean + half),
        "rounds": len(logs),
    }


def spread(record: Record, program: str) -> float:
    """The largest median of a round over the smallest: more than noise means several modes."""
    medians = [_median(one["runs"][program]) for one in counted(record)]
    return max(medians) / min(medians)


def _median(run: Record) -> float:
    return float(np.median(run["wall_ns"]))
