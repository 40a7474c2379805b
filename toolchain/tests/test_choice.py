"""Which backend is chosen, and what a race adds to the summary."""

from __future__ import annotations

import pytest

from toolchain import choice

PARITY = {"exact": False, "sqnr_db": 41.2, "max_abs": 0.1}


def row(variant, backend, p50, verdict="pass", scheme="int8_static"):
    return {
        "recipe": "r",
        "variant": variant,
        "scheme": scheme,
        "backend": backend,
        "target": "t",
        "device": "local",
        "verdict": verdict,
        "latency_ms": p50 and {"p50": p50},
        "findings": [],
    }


def pair(faster, slower, ratio, low, high):
    return {"variant": "int8", "faster": faster, "slower": slower, "ratio": ratio, "low": low,
            "high": high, "parity": PARITY}  # fmt: skip


def comparison(backends=(), pays=(), moved=(), spread=1.0):
    operators = [{"type": "conv", "share": 0.7}, {"type": "copy", "share": 0.2}]
    names = ("float/a", "int8/a", "float/b", "int8/b")
    return {
        "recipe": "r",
        "target": "t",
        "device": "local",
        "backends": list(backends),
        "pays": list(pays),
        "moved": list(moved),
        "programs": {name: {"operators": operators, "spread": spread} for name in names},
    }


def test_the_fastest_that_passes_is_chosen():
    rows = [row("int8", "a", 2.0), row("int8", "b", 1.0)]
    choice.choose(rows, [comparison([pair("b", "a", 2.0, 1.9, 2.1)])])
    assert [one["chosen"] for one in rows] == [False, True]
    assert rows[1]["findings"] == ["chosen: b; 2.00x (1.90 to 2.10) as fast as a, outputs at 41 dB"]


@pytest.mark.parametrize("verdict", ["fail", "inconclusive"])
def test_a_faster_one_that_does_not_pass_is_not(verdict):
    rows = [row("int8", "a", 2.0), row("int8", "b", 1.0, verdict)]
    choice.choose(rows, [comparison([pair("b", "a", 2.0, 1.9, 2.1)])])
    assert [one["chosen"] for one in rows] == [True, False]
    assert rows[0]["findings"] == [f"chosen: a; b is 2.00x (1.90 to 2.10) as fast, but: {verdict}"]


def test_without_a_program_that_passes_none_is_chosen():
    rows = [row("int8", "a", 2.0, "fail"), row("int8", "b", None, "infra-error")]
    choice.choose(rows, [comparison()])
    assert not any(one["chosen"] for one in rows)
    assert rows[0]["findings"] == ["no backend is chosen: none of them passes"]


def test_a_difference_that_cannot_be_told_is_called_so():
    rows = [row("int8", "a", 1.01), row("int8", "b", 1.0)]
    choice.choose(rows, [comparison([pair("b", "a", 1.01, 0.98, 1.04)])])
    assert "no difference that could be told" in rows[1]["findings"][0]


def test_a_slowdown_is_told_with_where_the_time_goes():
    pays = {
        "variant": "int8",
        "backend": "a",
        "float": "float",
        "ratio": 0.5,
        "low": 0.4,
        "high": 0.6,
    }
    rows = [row("float", "a", 1.0, scheme="float"), row("int8", "a", 2.0)]
    choice.choose(rows, [comparison(pays=[pays])])
    assert rows[1]["against_float"] == pays
    assert rows[1]["findings"] == [
        "quantization does not pay: 0.50x (0.40 to 0.60) as fast as float; "
        "time in int8: conv 70%, copy 20%; float: conv 70%, copy 20%"
    ]


@pytest.mark.parametrize("high", [1.0, 1.2])
def test_no_slowdown_is_no_finding(high):
    pays = {
        "variant": "int8",
        "backend": "a",
        "float": "float",
        "ratio": 0.99,
        "low": 0.9,
        "high": high,
    }
    rows = [row("float", "a", 1.0, scheme="float"), row("int8", "a", 1.0)]
    choice.choose(rows, [comparison(pays=[pays])])
    assert rows[1]["findings"] == []


def test_without_a_race_nothing_is_chosen():
    rows = [row("int8", "a", None)]
    choice.choose(rows, [])
    assert rows[0]["chosen"] is None


def test_the_rounds_decide_not_the_pooled_times():
    rows = [row("int8", "a", 100.0), row("int8", "b", 101.0)]
    choice.choose(rows, [comparison([pair("b", "a", 1.1, 1.05, 1.15)])])
    assert [one["chosen"] for one in rows] == [False, True]


def test_where_the_fastest_fails_the_others_are_still_compared():
    rows = [row("int8", "a", 1.0, "fail"), row("int8", "b", 2.0), row("int8", "c", 3.0)]
    pairs = [
        pair("a", "b", 2, 1.9, 2.1),
        pair("a", "c", 3, 2.9, 3.1),
        pair("b", "c", 1.5, 1.4, 1.6),
    ]
    choice.choose(rows, [comparison(pairs)])
    assert [one["chosen"] for one in rows] == [False, True, False]
    assert "1.50x (1.40 to 1.60) as fast as c" in rows[1]["findings"][0]


def test_nothing_is_concluded_from_a_disturbed_race():
    pays = {
        "variant": "int8",
        "backend": "a",
        "float": "float",
        "ratio": 0.5,
        "low": 0.4,
        "high": 0.6,
    }
    rows = [row("float", "a", 1.0, "inconclusive", "float"), row("int8", "a", 2.0, "inconclusive")]
    choice.choose(rows, [comparison(pays=[pays], moved=["a compiler ran"], spread=2.0)])
    assert [one["findings"] for one in rows] == [[], []]
    assert rows[1]["against_float"] is None


def test_rounds_that_differ_are_told():
    rows = [row("int8", "a", 2.0)]
    choice.choose(rows, [comparison(spread=1.5)])
    assert rows[0]["findings"] == ["medians of the rounds differ by up to 1.50x: compare with care"]
