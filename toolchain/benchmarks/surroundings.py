"""What the C++ runner sees of its own process, seen by a contender in Python in the same way.

The yardstick is a chain of sums: each waits for the last, and none leaves the first cache, so
that its time tells the clock, and little of what shares the core with it.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

YARDS, STEPS, SUMS = 5, 300, 2048  # some 2 ms each
PROC = Path("/proc/self")


def keep_to_last_cpus(count: int) -> list[int]:
    """Stay on the last `count` CPUs that this process may use."""
    kept = sorted(os.sched_getaffinity(0))[-count:]
    os.sched_setaffinity(0, kept)
    return kept


def peak_rss_bytes() -> int:
    """Not getrusage: its figure starts at that of the process which started this one."""
    for line in (PROC / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status holds no VmHWM")


class Guards:
    """Taken before and after the timed inferences; `moved` of `devices.guards` judges them."""

    def __init__(self) -> None:
        self._before = yardstick()
        self._switches, self._delay = switches(), delay_ns()

    def taken(self) -> dict[str, Any]:
        """As in the runner's report."""
        switched, delay = switches() - self._switches, delay_ns()
        both = delay is not None and self._delay is not None
        return {
            "involuntary_switches": switched,
            "run_delay_ns": delay - self._delay if both else None,  # type: ignore[operator]
            "yardstick_ns": {"before": self._before, "after": yardstick()},
        }


def yardstick() -> list[int]:
    times, numbers, sums = [], np.ones(SUMS), np.empty(SUMS)
    for _ in range(YARDS):
        start = time.perf_counter_ns()
        for _ in range(STEPS):
            np.add.accumulate(numbers, out=sums)
        times.append(time.perf_counter_ns() - start)
    return times


def switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def delay_ns() -> int | None:
    """What the threads waited for a CPU; None where the kernel does not tell."""
    try:
        files = [thread / "schedstat" for thread in (PROC / "task").iterdir()]
        return sum(int(file.read_text().split()[1]) for file in files)
    except (OSError, IndexError):
        return None
