"""Verdicts from figures and limits, and what the summary makes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from toolchain import schema, stats
from toolchain.steps import judge, summary

FIGURES: dict[str, Any] = {
    "accuracy": 0.97,
    "accuracy_float": 0.98,
    "drop": 0.01,
    "sqnr_db": 30.0,
    "min_cosine": 0.9,
    "equal": False,
    "samples": 4,
    "host": {
        "accuracy": 0.975,
        "accuracy_float": 0.98,
        "drop": 0.005,
        "sqnr_db": 30.5,
        "min_cosine": 0.95,
        "equal": False,
        "samples": 8,
    },
    "parity": {"exact": False, "sqnr_db": 40.0, "max_abs": 0.5},
    "instructions_per_inference": 1000,
    "latency_ms": {"p50": 2.0, "p90": 2.1, "p99": 2.5, "count": 1024},
    "latency_moved": [],
    "model_bytes": 100,
    "bundle_bytes": 200,
    "peak_rss_bytes": 300,
}


def verdict(tmp_path, figures=None, **limits):
    checks = tmp_path / "checks.json"
    checks.write_text(schema.Checks(**limits).canonical())
    return judge.judged({**FIGURES, **(figures or {})}, checks)


HOLDS = {
    "max_drop": 0.01,
    "min_metric": 0.97,
    "min_sqnr": 30.0,
    "min_cosine": 0.9,
    "parity": 40.0,
    "max_instructions": 1000,
    "max_latency_ms": 2.0,
    "max_model_bytes": 100,
    "max_bundle_bytes": 200,
    "max_rss_bytes": 300,
}
FAILS = {
    "max_drop": (0.009, "drops by 0.0100"),
    "min_metric": (0.98, "0.97, under the limit of 0.98"),
    "min_sqnr": (30.25, "SQNR on the device, over 4 samples is 30.0 dB"),
    "min_cosine": (0.91, "least cosine to float on the device, over 4 samples is 0.9"),
    "parity": (41.0, "40.0 dB"),
    "max_instructions": (999, "1,000, over the limit of 999"),
    "max_latency_ms": (1.9, "latency (p50) is 2.0 ms"),
    "max_model_bytes": (99, "the program is 100 bytes"),
    "max_bundle_bytes": (199, "the bundle is 200 bytes"),
    "max_rss_bytes": (299, "peak memory is 300 bytes"),
}


def test_all_limits_hold(tmp_path):
    assert verdict(tmp_path, **HOLDS) == {"verdict": "pass", "reasons": [], "unchecked": []}


@pytest.mark.parametrize("limit", FAILS)
def test_each_limit_can_fail(tmp_path, limit):
    value, told = FAILS[limit]
    said = verdict(tmp_path, **{**HOLDS, limit: value})
    assert said["verdict"] == "fail"
    assert len(said["reasons"]) == 1
    assert told in said["reasons"][0]


@pytest.mark.parametrize(
    ("limit", "figure", "told"),
    [
        ("max_drop", {"drop": 0.5}, "on the host, over 8 samples"),
        ("min_metric", {"accuracy": 0.1}, "the metric on the host, over 8 samples is 0.1"),
        ("min_sqnr", {"sqnr_db": 1.0}, "SQNR on the host"),
        ("min_cosine", {"min_cosine": 0.1}, "on the host, over 8 samples is 0.1"),
    ],
)
def test_accuracy_over_all_samples_on_the_host_is_judged_too(tmp_path, limit, figure, told):
    host = {**FIGURES["host"], **figure}
    said = verdict(tmp_path, {"host": host}, **{limit: HOLDS[limit]})
    assert said["verdict"] == "fail"
    assert told in said["reasons"][0]
    few = {"host": {**host, "samples": 4}}
    assert verdict(tmp_path, few, **{limit: HOLDS[limit]})["verdict"] == "pass", "the same samples"


def test_without_noise_an_sqnr_holds(tmp_path):
    equal = {"sqnr_db": None, "equal": True}
    assert verdict(tmp_path, equal, min_sqnr=30.0)["verdict"] == "pass"
    said = verdict(tmp_path, {"sqnr_db": None}, min_sqnr=30.0)
    assert said["verdict"] == "inconclusive", "NaN is no figure, and no pass"


def test_zeros_of_another_sign_are_no_difference(tmp_path):
    zeros = {"parity": {"exact": False, "sqnr_db": None, "max_abs": 0.0}}
    assert verdict(tmp_path, zeros, parity=40.0)["verdict"] == "pass"
    assert verdict(tmp_path, zeros, parity="exact")["verdict"] == "fail"


def test_exact_parity_is_exact(tmp_path):
    said = verdict(tmp_path, parity="exact")
    assert said["verdict"] == "fail"
    assert "bit-exact" in said["reasons"][0]
    same = {"parity": {"exact": True, "sqnr_db": None, "max_abs": 0.0}}
    assert verdict(tmp_path, same, parity="exact")["verdict"] == "pass"
    assert verdict(tmp_path, same, parity=50.0)["verdict"] == "pass"


def test_outputs_that_are_not_finite_fail(tmp_path):
    broken = {"parity": {"exact": False, "sqnr_db": None, "max_abs": None}}
    assert verdict(tmp_path, broken)["verdict"] == "fail", "whether there is a limit or not"
    said = verdict(tmp_path, broken, parity=10.0)
    assert said["verdict"] == "fail"
    assert "NaN" in said["reasons"][0]


def test_a_limit_without_a_figure_is_undecided(tmp_path):
    said = verdict(tmp_path, {"instructions_per_inference": None}, max_instructions=5)
    assert said["verdict"] == "inconclusive"
    assert "instructions" in said["reasons"][0]


def test_a_failure_outweighs_what_is_undecided(tmp_path):
    said = verdict(
        tmp_path, {"instructions_per_inference": None}, max_instructions=5, max_model_bytes=1
    )
    assert said["verdict"] == "fail"
    assert len(said["reasons"]) == 2


def test_what_has_no_limit_is_listed(tmp_path):
    said = verdict(tmp_path)
    assert said["verdict"] == "pass"
    assert len(said["unchecked"]) == len(HOLDS)


def row(**changes):
    return {
        "recipe": "r",
        "variant": "int8",
        "scheme": "int8_static",
        "backend": "xnnpack",
        "target": "arm64",
        "device": "qemu:cortex-a72",
        "metric": "top1",
        "verdict": "pass",
        "reasons": [],
        "unchecked": [],
        "samples": 4,
        "samples_available": 4,
        "instructions_unavailable": None,
        "load": {
            "delegated_share": 1.0,
            "delegates": 1,
            "undelegated": {},
            "remarks": [],
            "not_quantized": {},
        },
        "provenance": {},
        "runtime": {"apart": False, "bytes": 5},
        **FIGURES,
        "latency_ms": None,
        **changes,
    }


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        (["pass", "pass"], 0),
        (["pass", "fail"], 1),
        (["inconclusive", "pass"], 1),
        (["pass", "infra-error"], 3),
        (["infra-error", "fail"], 1),
    ],
)
def test_the_worst_verdict_is_the_exit_status(tmp_path, capsys, verdicts, status):
    files, left_out = [], tmp_path / "left_out.txt"
    left_out.write_text("tiny int4: the backend cannot")
    for number, value in enumerate(verdicts):
        made = row(verdict=value, variant=f"v{number}", reasons=["it broke"] * (value != "pass"))
        if value == "infra-error":
            made |= dict.fromkeys(stats.FIGURES)
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(made))
    with pytest.raises(SystemExit) as left:
        summary.run(verdict=files, comparison=[], left_out=left_out, out=tmp_path / "summary.json")
    assert left.value.code == status
    written = json.loads((tmp_path / "summary.json").read_bytes())
    assert [r["verdict"] for r in written] == verdicts
    printed = capsys.readouterr().out
    assert all(value in printed for value in verdicts)
    assert "Left out: tiny int4: the backend cannot" in printed
    assert printed.count("it broke") == len([v for v in verdicts if v != "pass"])


def test_nothing_is_left_unsaid():
    floating = row(variant="float", scheme="float", model_bytes=90)
    quantized = row(
        samples=2,
        metric="agreement",
        load={
            "undelegated": {"aten::mean.out": 2},
            "remarks": ["weights of 7 bits"],
            "not_quantized": {"aten.elu.default (why)": 3},
        },
        instructions_unavailable="no counter",
    )
    said = " | ".join(summary.findings(quantized, [floating, quantized]))
    for part in (
        "aten::mean.out x2",
        "aten.elu.default (why) x3",
        "weights of 7 bits",
        "2 of 4 samples",
        "agreement with the float model",
        "no counter",
        "not cheaper than float in size",
    ):
        assert part in said
    assert summary.findings(floating, [floating, quantized]) == []
