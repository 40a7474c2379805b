"""What could have disturbed a measurement: facts of the moment, and whether they moved.

    before = guards.take(device)
    …                                         the runner also looks, around its timed region
    after = guards.take(device)
    reasons = guards.moved(before, after, [report["guards"] | {"timed_ns": …, "threads": 1}])

A machine that tells nothing of its clock (most virtual ones) is judged by the runner's yardstick:
a loop that always takes the same number of cycles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolchain.devices.base import Device
from toolchain.errors import InfraError

# Of the time that the machine's CPUs were wanted, what its host may have kept. A quiet virtual
# machine shows some ticks of 10 ms at any time (each waking up costs it a little), so few of them
# say nothing of a share; over seconds they are below 1 %, and with a neighbour several per cent.
STEAL_SHARE, STEAL_TICKS = 0.02, 10
# Of one core, what others may have used while the runner ran, on its threads' cores and on others.
# A quiet machine's services take some per cent; a compiler takes all of one.
OTHERS_SHARE, OTHERS_TICKS = 0.25, 10
# Of the timed region, what the program may have waited for its CPU. Alone on its core it waits
# 0 to 0.2 %, while others work on the other cores up to 1 %, with one rival on its core 40 to 50 %.
DELAY_SHARE = 0.02
# Preemptions in a second of the timed region, where the kernel does not tell the time waited. A
# rival on the same core makes more than 100; the kernel's own short work up to 70.
SWITCHES, SWITCHES_MIN = 80.0, 10
# How much the clock, or what a neighbour on the same physical core leaves of it, may differ. The
# fastest of five yardsticks differs by 0.1 to 2.5 %; a step of the clock is 3 % and more.
PACE_SHARE = 0.03
# The same for a clock that the machine tells itself.
FREQUENCY_SHARE = 0.03
# Governors under which a clock that is told is that of the work, not that of idling.
_STEADY = {"performance", "userspace"}

_SECONDS = 30.0  # for a device to answer

SCRIPT = r"""
say() { printf '\n@%s\n' "$1"; }
cpus=$1/sys/devices/system/cpu
say governor; cat "$cpus"/cpu[0-9]*/cpufreq/scaling_governor
say frequency; grep . "$cpus"/cpu[0-9]*/cpufreq/scaling_cur_freq /dev/null
say load; cat "$1/proc/loadavg"
say ticks; grep '^cpu ' "$1/proc/stat"
say cpus; grep -c '^cpu[0-9]' "$1/proc/stat"
say temperature; cat "$1"/sys/class/thermal/thermal_zone*/temp
for chip in "$1"/sys/class/hwmon/hwmon*; do
    case $(cat "$chip/name") in coretemp | k10temp | zenpower) cat "$chip"/temp*_input ;; esac
done
say throttled; cat "$cpus"/cpu[0-9]*/thermal_throttle/core_throttle_count
say firmware; cat "$1"/sys/devices/platform/soc/*firmware/get_throttled
say quota; cat "$1/sys/fs/cgroup/cpu.stat" || cat "$1/sys/fs/cgroup/cpu/cpu.stat"
exit 0
"""


def take(device: Device) -> dict[str, Any]:
    """The facts of this moment on a device. What it does not tell is None.

    governor; frequency_khz of each CPU; load_1m; steal_ticks, busy_ticks, total_ticks: 10 ms of
    any of the cpus; temperature_mc: thousandths of a degree, of the warmest part; throttled: how
    often heat slowed a core; limits: a Raspberry Pi's reasons to be slow now, as bits; quota_stops:
    how often a container had used its share of CPU time.
    """
    done = device.run(["sh", "-c", SCRIPT, "slipway", ""], timeout=_SECONDS)
    return parse(done.stdout.decode(errors="replace"))


def parse(text: str) -> dict[str, Any]:
    """The facts in the script's output."""
    parts = re.split(r"^@(\w+)\n", text, flags=re.M)
    said = {key: value.strip() for key, value in zip(parts[1::2], parts[2::2], strict=True)}
    try:
        ticks = [int(field) for field in said["ticks"].split()[1:9]]
        load = float(said["load"].split()[0])
        idle, waiting, steal = ticks[3], ticks[4], ticks[7]
    except (KeyError, IndexError, ValueError):
        raise InfraError(f"the device does not tell its load: {text[:200]!r}") from None
    governors = sorted(set(said["governor"].split()))
    clocks = re.findall(r"/cpu(\d+)/cpufreq/\S+?:(\d+)$", said["frequency"], re.M)
    stops = re.search(r"^nr_throttled (\d+)$", said["quota"], re.M)
    counts, warmth = _integers(said["throttled"]), _integers(said["temperature"])
    return {
        "governor": ", ".join(governors) or None,
        "frequency_khz": [int(khz) for _, khz in sorted(clocks, key=lambda c: int(c[0]))] or None,
        "load_1m": load,
        "steal_ticks": steal,
        "busy_ticks": sum(ticks) - idle - waiting,
        "total_ticks": sum(ticks),
        "cpus": max(1, *_integers(said["cpus"])),
        "temperature_mc": max(warmth, default=None),
        "throttled": sum(counts) if counts else None,
        # The upper half of the bits only says that it happened once since the start.
        "limits": int(said["firmware"], 16) & 0xFFFF if said["firmware"] else None,
        "quota_stops": int(stops[1]) if stops else None,
    }


def moved(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    fastest_ns: float | None = None,
) -> list[str]:
    """Why what was measured between two takes is not to be trusted; empty: nothing moved.

    runs: of each run of the runner between them the `guards` of its report, `timed_ns`, the
    length of its timed region, and its `threads`. fastest_ns: the yardstick at its best on this
    device, if known; what slows the whole of a run is only seen beside another one.
    """
    reasons = [*_of_machine(before, after)]
    reasons += _of_others(before, after, max((run["threads"] for run in runs), default=0))
    for run in runs:
        reasons += _of_run(run, fastest_ns)
    return list(dict.fromkeys(reasons))


def pace(run: Mapping[str, Any]) -> float:
    """The yardstick at its best in a run, in ns."""
    return float(min(*run["yardstick_ns"]["before"], *run["yardstick_ns"]["after"]))


def notes(facts: Mapping[str, Any]) -> list[str]:
    """What makes the figures of a device less steady than they could be."""
    found = []
    if facts["governor"] not in (None, "performance"):
        found.append(f"the CPU's governor is {facts['governor']}, not performance")
    if facts["frequency_khz"] is None:
        found.append("the device does not tell its CPUs' clock")
    return found


def _of_machine(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    stolen = after["steal_ticks"] - before["steal_ticks"]
    busy = after["busy_ticks"] - before["busy_ticks"]
    if stolen >= STEAL_TICKS and stolen > STEAL_SHARE * busy:
        yield f"its host took {stolen / busy:.1%} of the CPU time"
    if after["governor"] != before["governor"]:
        yield f"the governor changed from {before['governor']} to {after['governor']}"
    elif before["governor"] in _STEADY:
        yield from _of_clock(before["frequency_khz"] or [], after["frequency_khz"] or [])
    for key, what in (("throttled", "heat slowed a core"), ("quota_stops", "its CPU quota ended")):
        if (times := (after[key] or 0) - (before[key] or 0)) > 0:
            yield f"{what} {times} times"
    if limits := (before["limits"] or 0) | (after["limits"] or 0):
        names = ("low voltage", "a limited clock", "throttling", "its soft limit of temperature")
        told = [name for bit, name in enumerate(names) if limits >> bit & 1]
        yield f"its firmware reports {', '.join(told) or hex(limits)}"


def _of_others(before: Mapping[str, Any], after: Mapping[str, Any], threads: int) -> Iterator[str]:
    """Work beside that of the runs, on whichever core: caches and memory are shared."""
    ticks = (after["total_ticks"] - before["total_ticks"]) / after["cpus"]
    others = after["busy_ticks"] - before["busy_ticks"] - threads * ticks
    if ticks >= OTHERS_TICKS and others > OTHERS_SHARE * ticks:
        yield f"other programs took {others / ticks:.0%} of a core"


def _of_clock(before: Sequence[int], after: Sequence[int]) -> Iterator[str]:
    pairs = zip(before, after, strict=False)
    was, now = max(pairs, key=lambda pair: abs(pair[1] / pair[0] - 1), default=(1, 1))
    if abs(now / was - 1) > FREQUENCY_SHARE:
        yield f"a CPU's clock changed from {was / 1e6:.2f} to {now / 1e6:.2f} GHz"


def _of_run(run: Mapping[str, Any], fastest_ns: float | None) -> Iterator[str]:
    if run["run_delay_ns"] is not None:
        if (delay := run["run_delay_ns"] / run["timed_ns"]) > DELAY_SHARE:
            yield f"the program waited for its CPU {delay:.1%} of the time"
    else:
        seconds, switches = run["timed_ns"] / 1e9, run["involuntary_switches"]
        if switches >= SWITCHES_MIN and switches > SWITCHES * seconds:
            yield f"the program was preempted {switches} times in {seconds:.2f} s"
    before, after = (min(run["yardstick_ns"][when]) for when in ("before", "after"))
    if max(before, after) > (1 + PACE_SHARE) * min(before, after):
        yield f"the yardstick took {before / 1e6:.2f} ms before and {after / 1e6:.2f} after"
    elif fastest_ns and pace(run) > (1 + PACE_SHARE) * fastest_ns:
        yield f"the yardstick took {pace(run) / 1e6:.2f} ms, {fastest_ns / 1e6:.2f} at its best"


def _integers(text: str) -> list[int]:
    return [int(word) for word in text.split() if word.lstrip("-").isdigit()]
