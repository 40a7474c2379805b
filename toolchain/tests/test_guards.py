"""What could disturb a measurement: how it is asked for, and when it counts."""

from __future__ import annotations

import copy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from toolchain.devices import guards
from toolchain.devices.fake import FakeDevice
from toolchain.errors import InfraError

SHELLS = [["sh"], *([["busybox", "sh"]] if shutil.which("busybox") else [])]
STAT = "cpu  1000 20 300 50000 60 7 8 9 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\n"


@pytest.fixture
def machine(tmp_path):
    """A function that makes the root folder of a machine: what it tells, by name."""

    root: Path = tmp_path / "root"

    def make(**more: str) -> Path:
        told = {"proc/loadavg": "0.25 0.3 0.4 1/92 318\n", "proc/stat": STAT}
        for name, text in (told | more).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return root

    return make


def _told(root: Path, shell: list[str]) -> dict[str, Any]:
    command = [*shell, "-c", guards.SCRIPT, "slipway", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return guards.parse(done.stdout)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_a_virtual_machine_that_tells_little(machine, shell):
    assert _told(machine(), shell) == {
        "governor": None,
        "frequency_khz": None,
        "load_1m": 0.25,
        "steal_ticks": 9,
        "busy_ticks": 1344,
        "total_ticks": 51404,
        "cpus": 2,
        "temperature_mc": None,
        "throttled": None,
        "limits": None,
        "quota_stops": None,
    }


CPU = "sys/devices/system/cpu/cpu{}"
RICH = {
    **{f"{CPU.format(n)}/cpufreq/scaling_governor": "ondemand\n" for n in range(11)},
    **{f"{CPU.format(n)}/cpufreq/scaling_cur_freq": f"{600000 + n}\n" for n in range(11)},
    **{f"{CPU.format(n)}/thermal_throttle/core_throttle_count": f"{n}\n" for n in range(3)},
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "not this\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/thermal/thermal_zone1/temp": "-5000\n",
    "sys/class/hwmon/hwmon0/name": "nvme\n",
    "sys/class/hwmon/hwmon0/temp1_input": "90000\n",
    "sys/class/hwmon/hwmon1/name": "k10temp\n",
    "sys/class/hwmon/hwmon1/temp1_input": "51000\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    "sys/fs/cgroup/cpu.stat": "usage_usec 5\nnr_periods 9\nnr_throttled 4\nthrottled_usec 8\n",
}


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_a_machine_that_tells_all(machine, shell):
    found = _told(machine(**RICH), shell)
    assert found["governor"] == "ondemand"
    assert found["frequency_khz"] == [600000 + n for n in range(11)], "in the order of the CPUs"
    assert found["throttled"] == 0 + 1 + 2
    assert found["temperature_mc"] == 51000
    assert found["limits"] == 0b101
    assert found["quota_stops"] == 4


def test_one_cpu_and_two_governors(machine):
    one = f"{CPU.format(0)}/cpufreq/scaling_cur_freq"
    several = {f"{CPU.format(n)}/cpufreq/scaling_governor": f"{g}\n" for n, g in enumerate("bab")}
    found = _told(machine(**{one: "1000\n"}, **several), ["sh"])
    assert found["frequency_khz"] == [1000]
    assert found["governor"] == "a, b"


def test_this_machine_is_asked_through_a_device():
    with FakeDevice() as device:
        before, after = guards.take(device), guards.take(device)
    assert after["total_ticks"] >= before["total_ticks"] > after["steal_ticks"] >= 0
    assert before["load_1m"] >= 0


def test_a_device_that_tells_nothing_is_an_infra_error():
    with pytest.raises(InfraError, match="does not tell its load"):
        guards.parse("")


# ---- what counts

CALM = {
    "governor": "performance",
    "frequency_khz": [3_000_000, 3_000_000],
    "load_1m": 0.1,
    "steal_ticks": 1000,
    "busy_ticks": 50_000,
    "total_ticks": 900_000,
    "cpus": 4,
    "temperature_mc": 50_000,
    "throttled": 3,
    "limits": 0,
    "quota_stops": 2,
}
# As much as a quiet machine showed.
LATER = CALM | {
    "busy_ticks": 51_000,
    "total_ticks": 904_000,
    "steal_ticks": 1002,
    "temperature_mc": 71_000,
    "load_1m": 0.9,
}
RUN = {
    "threads": 1,
    "timed_ns": 500_000_000,
    "involuntary_switches": 4,
    "run_delay_ns": 1_000_000,
    "yardstick_ns": {
        "before": [2_010_000, 5_000_000, 2_000_000, 2_020_000, 2_015_000],
        "after": [2_040_000, 2_100_000, 2_040_000, 2_041_000, 9_000_000],
    },
}


def test_a_calm_machine_has_not_moved():
    assert guards.moved(CALM, LATER, [RUN, RUN]) == []
    silent = dict.fromkeys(CALM) | {"steal_ticks": 0, "busy_ticks": 10, "load_1m": 0.0}
    silent |= {"total_ticks": 20, "cpus": 1}
    assert guards.moved(silent, silent, [RUN | {"run_delay_ns": None}]) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"steal_ticks": 1030}, "its host took 3.0% of the CPU time"),
        ({"busy_ticks": 51_300}, "other programs took 30% of a core"),
        ({"governor": "powersave"}, "the governor changed from performance to powersave"),
        ({"frequency_khz": [3_000_000, 2_700_000]}, "clock changed from 3.00 to 2.70 GHz"),
        ({"throttled": 5}, "heat slowed a core 2 times"),
        ({"quota_stops": 3}, "its CPU quota ended 1 times"),
        ({"limits": 0b101}, "its firmware reports low voltage, throttling"),
        ({"limits": 0x4000}, "its firmware reports 0x4000"),
    ],
)
def test_a_machine_that_moved(change, reason):
    (said,) = guards.moved(CALM, LATER | change, [RUN])
    assert reason in said


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"run_delay_ns": 11_000_000}, "the program waited for its CPU 2.2% of the time"),
        (
            {"involuntary_switches": 60, "run_delay_ns": None},
            "the program was preempted 60 times in 0.50 s",
        ),
        (
            {"yardstick_ns": {"before": [2_000_000] * 5, "after": [2_090_000] * 5}},
            "the yardstick took 2.00 ms before and 2.09 after",
        ),
        (
            {"yardstick_ns": {"before": [2_090_000] * 5, "after": [2_000_000] * 5}},
            "the yardstick took 2.09 ms before and 2.00 after",
        ),
    ],
)
def test_a_run_that_was_disturbed(change, reason):
    disturbed = copy.deepcopy(RUN) | change
    assert guards.moved(CALM, LATER, [RUN, disturbed]) == [reason]
    assert guards.moved(CALM, LATER, [disturbed, disturbed]) == [reason], "said once"


def test_few_events_are_no_share():
    """A short run: some ticks of steal, and a few preemptions at its start."""
    short = RUN | {"timed_ns": 20_000_000, "involuntary_switches": 9, "run_delay_ns": None}
    assert guards.moved(CALM, CALM | {"busy_ticks": 50_025, "steal_ticks": 1004}, [short]) == []


def test_preemptions_that_cost_no_time_do_not_count():
    assert guards.moved(CALM, LATER, [RUN | {"involuntary_switches": 500}]) == []


def test_a_run_that_was_slow_from_end_to_end_is_seen_beside_another():
    slow = RUN | {"yardstick_ns": {"before": [2_300_000] * 5, "after": [2_310_000] * 5}}
    assert guards.pace(slow) == 2_300_000
    fastest = min(map(guards.pace, [RUN, slow]))
    assert guards.moved(CALM, LATER, [slow]) == []
    assert guards.moved(CALM, LATER, [RUN], fastest) == []
    said = ["the yardstick took 2.30 ms, 2.00 at its best"]
    assert guards.moved(CALM, LATER, [RUN, slow], fastest) == said


def test_a_clock_that_follows_the_load_is_not_judged_but_noted():
    """Between two runs it idles; the yardstick tells the clock of the run itself."""
    before, after = (CALM | {"governor": "ondemand", "frequency_khz": [f]} for f in (6e5, 15e5))
    assert guards.moved(before, after, [RUN]) == []
    assert guards.notes(before) == ["the CPU's governor is ondemand, not performance"]
    assert guards.notes(CALM) == []
    told = guards.notes(CALM | {"governor": None, "frequency_khz": None})
    assert told == ["the device does not tell its CPUs' clock"]
