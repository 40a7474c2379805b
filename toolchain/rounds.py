"""Let programs take turns on a device, and look around each turn for what could have disturbed it.

    round 1   a  b  c
    round 2   b  c  a      each begins with the next one
    …

A round in which something moved is kept, does not count, and is repeated, at most as often as there
are rounds. `toolchain.racing` reads what is taken here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from toolchain import racing
from toolchain.devices import guards
from toolchain.devices.base import Device
from toolchain.errors import CheckFailed, show

# What one run of a program gives: a runner's report.
Turn = Callable[[], Mapping[str, Any]]
KEPT = ("load_ns", "peak_rss_bytes", "threads")  # of a report, beside its times


def warmup(count: int) -> int:
    """So many inferences come before `count` timed ones."""
    return math.ceil(count / 8)


def taken(
    turns: Mapping[str, Turn], device: Device, *, wanted: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Wanted rounds, all that were taken, what failed and why, and facts of the device.

    {"wanted_rounds", "rounds": [{"order", "runs": {name: run}}], "failed": {name: why}, "facts"}.
    A turn raises CheckFailed if its program breaks: it is out, and the others go on.
    """
    names = list(turns)
    rounds: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    before = guards.take(device)
    while len(racing.calm(rounds)) < wanted and len(rounds) < 2 * wanted:
        first = len(rounds) % len(names)
        runs = {}
        for name in [*names[first:], *names[:first]]:
            if name in failed:
                continue
            try:
                runs[name] = _observed(turns[name], device)
            except CheckFailed as error:
                failed[name] = str(error)
                show(CheckFailed(str(error), where=f"{name} in the race"))
        rounds.append({"order": list(runs), "runs": runs})
        _judge(rounds)
        say(_told(rounds, wanted))
    after = guards.take(device)
    for one in rounds:
        one["runs"] = {name: run for name, run in one["runs"].items() if name not in failed}
    facts = {"before": before, "after": after}
    return {"wanted_rounds": wanted, "rounds": rounds, "failed": failed, "facts": facts}


def _observed(turn: Turn, device: Device) -> dict[str, Any]:
    """One run: its times in ns, and what was seen around it."""
    before = guards.take(device)
    report = turn()
    after = guards.take(device)
    wall_ns = report["iterations"]["wall_ns"]
    seen = {**report["guards"], "timed_ns": sum(wall_ns), "threads": report["threads"]}
    kept = {name: report[name] for name in KEPT}
    return {"wall_ns": wall_ns, "guards": seen, "before": before, "after": after, **kept}


def _judge(rounds: Sequence[Mapping[str, Any]]) -> None:
    """Say of each run what disturbed it; one that was slow throughout is seen beside the others.

    Those of the same program: another one may have another yardstick.
    """
    for name in {name for one in rounds for name in one["runs"]}:
        runs = [one["runs"][name] for one in rounds if name in one["runs"]]
        fastest = min(guards.pace(run["guards"]) for run in runs)
        for run in runs:
            seen = [run["guards"]]
            run["moved"] = guards.moved(run["before"], run["after"], seen, fastest_ns=fastest)


def _told(rounds: Sequence[Mapping[str, Any]], wanted: int) -> str:
    runs = rounds[-1]["runs"]
    reasons = [f"{name}: {why}" for name, run in runs.items() for why in run["moved"]]
    odd = f"; this one does not: {reasons[0]}" if reasons else ""
    calm = len(racing.calm(rounds))
    return f"round {len(rounds)}, {len(runs)} programs: {calm} of {wanted} count{odd}"
