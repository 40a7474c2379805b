"""Where the time of a build goes: the seconds of each step, summed by kind, at its end."""

from __future__ import annotations

from collections import defaultdict

WORTH_TELLING = 30.0  # seconds; of a shorter build nobody asks


class Timings:
    """What steps took, as they end."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def add(self, verb: str, seconds: float) -> None:
        self._seconds[verb].append(seconds)

    def line(self, elapsed: float) -> str:
        """Such as `time: 71 s; lower 4x 40 s, measure 4x 22 s`; empty for a short build.

        elapsed: of the build, in seconds; steps ran beside each other, so that theirs sum to more.
        """
        if elapsed < WORTH_TELLING or not self._seconds:
            return ""
        ranked = sorted(self._seconds.items(), key=lambda item: -sum(item[1]))
        told = ", ".join(f"{verb} {len(s)}x {sum(s):.0f} s" for verb, s in ranked)
        return f"time: {elapsed:.0f} s; {told}"
