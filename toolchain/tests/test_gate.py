"""The regression gate: exact costs, times, surroundings, and which run is the first bad one."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from toolchain.errors import UserError
from toolchain.history import History, gate, latency, recorded
from toolchain.schema import Checks

KEY = "digits/int8/xnnpack/arm64"
ROUNDS = [1000.0, 1004.0, 998.0, 1001.0, 1003.0, 997.0, 1002.0, 999.0]
ROW: dict[str, Any] = {
    "verdict": "pass", "reasons": [], "recipe": "digits", "accuracy": 0.99, "samples": 359,
    "threads": 1, "instructions_per_inference": 100_000_000, "model_bytes": 1000,
    "bundle_bytes": 2000, "peak_rss_bytes": 3000, "latency_ms": None, "latency_moved": [],
    "provenance": {
        "evaluation_sha256": "e" * 64,
        "device": {"cpu": "Cortex-A72", "libc": "2.36", "kernel": "6.1", "emulator": "QEMU 7.2"},
    },
}  # fmt: skip


@pytest.fixture
def history(tmp_path):
    with History(str(tmp_path / "history.sqlite")) as one:
        yield one


def night(history, run, limits=None, rounds=(), device=None, **figures):
    """Record and judge a run whose row differs from ROW in `figures`."""
    row = copy.deepcopy(ROW) | figures
    told = row["provenance"]["device"] | (device or {})
    row["provenance"]["device"] = {name: value for name, value in told.items() if value}
    samples = {"wall_ns": [[value] for value in rounds]}
    history.begin(run, {})
    assert history.record(run, KEY, row, samples, pool="arm64", unit="u", attempt=1)
    return gate.judge(history, run, KEY, row, limits or Checks())


def server(history, run, slower=1.0, **changes):
    """A night on real hardware; its rounds differ from those of others by half a per cent."""
    chance = random.Random(run)
    rounds = [value * slower * chance.uniform(0.995, 1.005) for value in ROUNDS]
    return night(history, run, rounds=rounds, device={"emulator": ""}, **changes)


def test_the_first_night_has_no_baseline_and_the_next_passes(history):
    assert night(history, "n1").verdict == "no baseline"
    second = night(history, "n2")
    assert (second.verdict, second.baseline_run, second.reasons) == ("pass", "n1", ())


@pytest.mark.parametrize(
    "figure", ["instructions_per_inference", "model_bytes", "bundle_bytes", "peak_rss_bytes"]
)
def test_any_increase_of_an_exact_cost_is_a_regression(history, figure):
    night(history, "n1")
    more = ROW[figure] + max(1, ROW[figure] // 100_000)
    told = night(history, "n2", **{figure: more})
    assert (told.verdict, told.baseline_run, told.first_bad_run) == ("regression", "n1", "n2")
    assert f"{more:,}" in told.reasons[0]


def test_the_noise_of_the_counter_is_no_change(history):
    night(history, "n1")
    assert night(history, "n2", instructions_per_inference=100_000_010).notes == ()
    assert history.row("n2", KEY).gate.verdict == "pass"


def test_a_small_increase_is_not_told_as_none(history):
    night(history, "n1")
    (reason,) = night(history, "n2", instructions_per_inference=100_002_500).reasons
    assert "instructions: 100,002,500, was 100,000,000 in run n1 (+25.0 ppm; 0.00% is" in reason


def test_a_decrease_is_told_and_becomes_the_baseline(history):
    night(history, "n1")
    told = night(history, "n2", model_bytes=900)
    assert told.verdict == "pass"
    assert told.notes == ("the program: 900 bytes, was 1,000 bytes in run n1 (-10.00%)",)
    assert night(history, "n3", model_bytes=1000).verdict == "regression"


def test_the_recipe_may_allow_more(history):
    night(history, "n1")
    limits = Checks(max_cost_increase=0.1)
    assert night(history, "n2", limits, model_bytes=1100).verdict == "pass"
    assert night(history, "n3", limits, model_bytes=1300).verdict == "regression"


def test_a_regression_is_no_baseline_and_the_first_bad_run_is_named(history):
    night(history, "n1")
    night(history, "n2", model_bytes=1500)  # shows, but does not stay
    night(history, "n3")
    night(history, "n4", model_bytes=1200)
    night(history, "n5", model_bytes=1200, verdict="inconclusive")
    told = night(history, "n6", model_bytes=1250)
    assert (told.verdict, told.baseline_run, told.first_bad_run) == ("regression", "n3", "n4")


def test_a_change_that_did_not_stay_is_not_the_first_bad_run(history):
    night(history, "n1")
    night(history, "n2", model_bytes=1200)
    night(history, "n3", verdict="fail")  # no baseline, yet as small as before
    told = night(history, "n4", model_bytes=1200)
    assert (told.baseline_run, told.first_bad_run) == ("n1", "n4")


def test_a_run_that_was_stopped_before_its_gate_hides_nothing(history):
    night(history, "good")
    stopped = ROW | {"model_bytes": 1200}
    history.begin("stopped", {})
    assert history.record("stopped", KEY, stopped, {}, pool="arm64", unit="u", attempt=1)
    after = night(history, "after", model_bytes=1200)
    assert (after.verdict, after.baseline_run) == ("regression", "good")
    assert after.first_bad_run == "stopped"
    assert history.row("stopped", KEY).gate.verdict == "regression"


def test_an_accepted_change_is_the_new_baseline(history):
    night(history, "n1")
    assert night(history, "n2", model_bytes=1500).verdict == "regression"
    gate.accept(history, "n2", KEY, by="me")
    assert gate.judge(history, "n2", KEY).verdict == "accepted", "judging again leaves it"
    assert night(history, "n3", model_bytes=1500).verdict == "pass"


@pytest.mark.parametrize(
    ("device", "figures", "said"),
    [
        ({"emulator": "QEMU 10.0"}, {}, "the emulator: QEMU 10.0, was QEMU 7.2"),
        ({"cpu": "Cortex-A76"}, {}, "the CPU"),
        ({"libc": "2.41"}, {}, "the C library"),
        ({}, {"samples": 2}, "the number of samples"),
    ],
)
def test_other_surroundings_have_no_baseline(history, device, figures, said):
    night(history, "n1")
    told = night(history, "n2", device=device, instructions_per_inference=2 * 10**8, **figures)
    assert told.verdict == "no baseline"
    assert said in told.reasons[0]
    third = night(history, "n3", device=device, instructions_per_inference=2 * 10**8, **figures)
    assert (third.verdict, third.baseline_run) == ("pass", "n2")
    assert night(history, "n4").baseline_run == "n1", "back to what it was"


def test_sizes_are_judged_whatever_the_surroundings(history):
    night(history, "n1")
    told = night(history, "n2", device={"libc": "2.41"}, model_bytes=1001)
    assert (told.verdict, told.first_bad_run) == ("regression", "n2")


def test_a_failed_or_broken_run_is_no_baseline(history):
    night(history, "n1")
    night(history, "n2", verdict="fail", model_bytes=500)
    broken = dict.fromkeys(("model_bytes", "instructions_per_inference"))
    told = night(history, "n3", verdict="infra-error", reasons=["no answer"], **broken)
    assert (told.verdict, told.reasons) == ("inconclusive", ("not measured: no answer",))
    assert night(history, "n4").baseline_run == "n1"


def test_a_figure_that_is_lost_is_no_pass(history):
    night(history, "n1")
    told = night(history, "n2", instructions_per_inference=None)
    assert told.verdict == "inconclusive"


def test_another_accuracy_on_the_same_data_is_a_note(history):
    night(history, "n1")
    told = night(history, "n2", accuracy=0.98)
    assert told.verdict == "pass"
    assert "accuracy: 0.9800, was 0.9900" in told.notes[0]


def test_counts_and_memory_of_real_hardware_are_not_exact(history):
    server(history, "n1")
    assert server(history, "n2", peak_rss_bytes=9000).verdict == "pass"


def test_a_slower_program_is_a_regression_on_the_third_night(history):
    for run in ("n1", "n2", "n3"):
        server(history, run)
    told = [server(history, f"b{k}", 1.2) for k in range(3)]
    assert [one.verdict for one in told] == ["inconclusive", "inconclusive", "regression"]
    assert (told[2].baseline_run, told[2].first_bad_run) == ("n3", "b0")
    assert "to be sure: 2 runs more" in told[0].reasons[0]


def test_a_slow_night_alone_is_forgotten(history):
    server(history, "n1")
    assert server(history, "n2", 1.2).verdict == "inconclusive"
    assert server(history, "n3").verdict == "pass"
    assert server(history, "n4", 1.2).verdict == "inconclusive"


def test_below_the_factor_nothing_is_said(history):
    server(history, "n1")
    assert [server(history, f"b{k}", 1.03).verdict for k in range(3)] == ["pass"] * 3


def test_disturbed_times_are_not_used(history):
    server(history, "n1")
    moved = ["the clock changed"]
    told = server(history, "n2", 2.0, latency_moved=moved, verdict="inconclusive")
    assert (told.verdict, told.reasons) == (
        "inconclusive", ("latency: no times that can be trusted",),
    )  # fmt: skip
    assert server(history, "n3").baseline_run == "n1"


def test_a_faster_program_begins_a_new_baseline(history):
    server(history, "n1")
    assert server(history, "n2", 0.5).new_level
    told = [server(history, f"b{k}", 0.6) for k in range(3)]
    assert (told[2].verdict, told[2].baseline_run) == ("regression", "n2")


def test_what_was_not_recorded_cannot_be_judged(history):
    history.begin("n1", {})
    with pytest.raises(UserError, match="record it first"):
        gate.judge(history, "n1", KEY)


def test_rounds_that_a_neighbour_slowed_do_not_count():
    noisy = [1500.0, 998.0, 1510.0, 1001.0, 1490.0, 1003.0, 1000.0, 1505.0]
    assert latency.change([noisy], [ROUNDS]).ratio == pytest.approx(1, abs=0.01)
    assert latency.change([noisy], [ROUNDS] * 3).p > 0.1


def test_one_round_is_enough_to_compute_with():
    assert latency.change([[1000.0]], [[1000.0]]).ratio == 1


@pytest.mark.slow
def test_recorded_nights_give_few_false_alarms_and_large_slowdowns_are_seen():
    import numpy as np

    from toolchain.history import power

    programs = recorded.nights(recorded.read([recorded.KEPT]))
    chance = np.random.default_rng(5)
    assert power.rate(programs, 3, 0.0, 500, chance)[0] <= 0.01
    assert power.rate(programs, 3, 0.2, 200, chance)[0] >= 0.6
