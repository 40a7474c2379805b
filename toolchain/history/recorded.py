"""Recorded nights: the rounds of real races, as the gate sees them.

`nights.json` holds some, each round by the median of what was measured in it, so that the
simulation of `power` can be repeated anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolchain import racing
from toolchain.errors import UserError

KEPT = Path(__file__).with_name("nights.json")
Night = Sequence[float]  # medians of the rounds that count, in ns


def read(paths: Iterable[Path]) -> list[Mapping[str, Any]]:
    """The races in files of the race step, of `scripts/benchmark`, or of `thinned`."""
    found: list[Mapping[str, Any]] = []
    for path in paths:
        try:
            said = json.loads(path.read_bytes())
            races = said.get("nights") or [said.get("race", said) | _origin(said, path)]
            found += [race for race in races if race["rounds"]]
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise UserError(f"holds no race: {error}", where=str(path)) from None
    return found


def nights(races: Iterable[Mapping[str, Any]]) -> dict[str, list[Night]]:
    """By program, the nights on which it was raced undisturbed; of those with two at least."""
    found: dict[str, list[Night]] = {}
    for race in races:
        if racing.moved(race):
            continue
        rounds = racing.counted(race)
        for name in rounds[0]["runs"]:
            medians = [float(np.median(one["runs"][name]["wall_ns"])) for one in rounds]
            found.setdefault(f"{race['recipe']} {name}", []).append(medians)
    return {name: taken for name, taken in found.items() if len(taken) > 1}


def thinned(races: Iterable[Mapping[str, Any]]) -> bytes:
    """The races as a small file: one sample for each run, its median."""
    kept = {
        "nights": [
            {
                **{name: race[name] for name in ("recipe", "taken_at", "wanted_rounds")},
                "rounds": [
                    {
                        "runs": {
                            name: {"wall_ns": [_median(run["wall_ns"])], "moved": run["moved"]}
                            for name, run in one["runs"].items()
                        }
                    }
                    for one in race["rounds"]
                ],
            }
            for race in races
        ]
    }
    return (json.dumps(kept, separators=(",", ":")).replace('{"runs"', '\n{"runs"') + "\n").encode()


def _origin(said: Mapping[str, Any], path: Path) -> dict[str, str]:
    """build/<recipe>/race/<target>/<device>/race.json does not name its recipe."""
    taken = said.get("taken_at") or said["taken"]["at"]
    return {"recipe": said.get("recipe") or path.absolute().parents[3].name, "taken_at": taken}


def _median(wall_ns: Sequence[int]) -> int:
    """One that was measured."""
    return int(np.percentile(wall_ns, 50, method="inverted_cdf"))
