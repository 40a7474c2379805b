"""The build graph: which step makes which file from which others.

    spec ─┬─ export ─ quantize ─ lower ─┬─ host ─ analyze ─────┐
          ├─ data ─── reference ────────│──────────────────────┤
          └─ runtime ─ runner ──────────┴─ package ─ measure ──┼─ judge ─ summary
                                                   └─ race ────┴─ compare ──┘

A step's sources are the files it reads, its own source and all that this imports, the part of the
recipe that concerns it, and the versions of its tools: what SCons knows is all there is to know,
and `--debug=explain` is true.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from toolchain.engine import Engine
from toolchain.errors import UserError
from toolchain.graph import measurements, programs
from toolchain.graph.measurements import Place
from toolchain.jobs import Job
from toolchain.options import ALIASES, Options


class Graph:
    """Adds jobs to the build; what several jobs share is made once."""

    def __init__(self, options: Options) -> None:
        self.build = options.build
        self.remeasure = options.remeasure
        self.engine = Engine(options.build, options.cache)
        self._verdicts: list[Path] = []
        self._races: dict[Path, list[Place]] = defaultdict(list)

    def add(self, job: Job) -> None:
        """Everything from the recipe to the verdict of one job."""
        place = Place(job, job.layout(self.build))
        programs.model_and_data(self.engine, job, place.at)
        programs.program(self.engine, job, place.at)
        measurements.bundle(self.engine, place)
        measurements.measurement(self.engine, place, self.remeasure)
        if not job.device.emulated:
            self._races[place.race].append(place)
        self._verdicts.append(measurements.verdict(self.engine, place))

    def finish(self, asked: Sequence[str], left_out: Sequence[str]) -> None:
        """The summary over all jobs, and the goals; UserError for one that has nothing to make."""
        for places in self._races.values():
            measurements.race(self.engine, places, self.remeasure)
        summary = self.build / "summary.json"
        self.engine.step(
            "summary",
            "table",
            {"out": summary},
            {
                "verdict": self._verdicts,
                "comparison": [race / "comparison.json" for race in self._races],
                "left-out": self.engine.text(self.build / "left_out.txt", "\n".join(left_out)),
            },
            shared=False,
            stale=_ended_badly(summary),
        )
        self.engine.goal("check", summary, default=True)
        table = self.build / "table.md"
        self.engine.step("table", "of all programs", {"out": table}, {"verdict": self._verdicts})
        self.engine.goal("table", table)
        for goal in asked:
            if goal in ALIASES and goal not in self.engine.goals:
                raise UserError(
                    f"there is no '{goal}' of what is chosen",
                    hint="the scheme 'float' quantizes nothing; name another variant",
                )
        self.engine.leave_with_status_of(summary)


def _ended_badly(summary: Path) -> bool:
    """Whether the summary that is there is not one of success.

    SCons remembers only steps that succeed: to it the file would still be the one before.
    """
    try:
        rows = json.loads(summary.read_bytes())
        return any(row["verdict"] != "pass" for row in rows)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, TypeError, KeyError):
        return True
