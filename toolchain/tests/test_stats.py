"""Figures from samples."""

from __future__ import annotations

import numpy as np
import pytest

from toolchain import stats


def test_equal_bits_are_exact():
    a = [np.array([1.0, -0.0], np.float32)]
    assert stats.parity(a, [a[0].copy()]) == {"exact": True, "sqnr_db": None, "max_abs": 0.0}


def test_a_sign_of_zero_is_not_exact():
    differs = stats.parity([np.array([0.0, 1.0])], [np.array([-0.0, 1.0])])
    assert differs["exact"] is False


def test_parity_is_a_ratio_of_powers():
    told = stats.parity([np.array([3.0, 4.0])], [np.array([3.0, 4.5])])
    assert told["max_abs"] == 0.5
    assert told["sqnr_db"] == pytest.approx(10 * np.log10(25 / 0.25))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_outputs_that_are_not_finite_have_no_ratio(bad):
    nothing = {"exact": False, "sqnr_db": None, "max_abs": None}
    assert stats.parity([np.array([1.0])], [np.array([bad])]) == nothing
    assert stats.parity([np.array([bad])], [np.array([bad])]) == nothing, "though the same"


def test_outputs_are_taken_in_numerical_order():
    tensors = {f"output.{k}": np.full((3, 1), k) for k in (10, 2, 0)} | {"label": np.zeros(3)}
    assert [int(t[0, 0]) for t in stats.first(tensors, 2)] == [0, 2, 10]
    assert stats.first(tensors, 2)[0].shape == (2, 1)


def test_percentiles_are_samples():
    told = stats.latency([n * 1_000_000 for n in range(1, 101)])
    assert told == {"p50": 50.0, "p90": 90.0, "p99": 99.0, "count": 100}


def test_instructions_may_be_absent():
    assert stats.instructions(None) is None
    assert stats.instructions([]) is None
    assert stats.instructions([5, 7, 6]) == 6


def measured(emulated: bool) -> dict:
    return {
        "samples": 2,
        "samples_available": 4,
        "device": {"emulated": emulated},
        "bytes": {"program": 10, "bundle": 20},
        "runner": {
            "threads": 1,
            "load_ns": 3_000_000,
            "peak_rss_bytes": 30,
            "instructions_unavailable": None,
            "iterations": {"wall_ns": [1_000_000, 2_000_000], "instructions": [7, 7]},
        },
    }


def figures(emulated: bool, **raced):
    outputs = np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 1.0]]])
    device = {"output.0": outputs[:2][:, :, ::-1].copy()}
    host = {"output.0": outputs}

    def metric(out, label, _reference):
        return float((out[0][:, 0].argmax(-1) == label).mean())

    return stats.figures(
        measured(emulated), device, reference=host, host=host, label=np.array([0, 1, 0, 0]),
        metric=metric, **raced,
    )  # fmt: skip


def test_only_the_samples_that_the_device_ran_are_compared():
    told = figures(emulated=True)
    assert (told["accuracy"], told["accuracy_float"], told["drop"]) == (0.0, 1.0, 1.0)
    assert (told["samples"], told["samples_available"]) == (2, 4)
    assert told["parity"]["exact"] is False


def test_the_list_of_figures_is_complete():
    assert set(figures(emulated=True)) == set(stats.FIGURES)


def test_the_parts_of_a_bundle_are_told_apart():
    told = stats.sizes({"program": 10, "runner": 5, "bundle": 20, "total": 15})
    assert told == {
        "model_bytes": 10,
        "bundle_bytes": 20,
        "bundle_parts": {"program": 10, "runner": 5},
    }


def test_an_emulated_clock_is_no_latency():
    assert figures(emulated=True)["latency_ms"] is None
    assert figures(emulated=True)["load_ms"] is None
    raced = {"wall_ns": [3_000_000, 1_000_000, 2_000_000], "moved": ["the clock fell"]}
    assert figures(emulated=True, **raced)["latency_ms"] is None
    assert figures(emulated=False)["latency_ms"] is None, "without a race there are no times"
    told = figures(emulated=False, **raced)
    assert told["latency_ms"] == {"p50": 2.0, "p90": 3.0, "p99": 3.0, "count": 3}
    assert told["latency_moved"] == ["the clock fell"]
