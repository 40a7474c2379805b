"""What interleaved rounds say: ratios with their intervals, and rounds that do not count."""

from __future__ import annotations

import numpy as np
import pytest

from toolchain import racing


def race(*rounds, wanted=None, moved=()):
    """Rounds of median times in ns by program; `moved`: numbers of rounds that were disturbed."""
    made = [
        {
            "runs": {
                program: {
                    "wall_ns": [ns - 1, ns, ns + 1],
                    "moved": ["the clock fell"] * (k in moved),
                }
                for program, ns in times.items()
            }
        }
        for k, times in enumerate(rounds)
    ]
    return {"rounds": made, "wanted_rounds": len(rounds) if wanted is None else wanted}


def test_a_ratio_is_taken_within_each_round():
    """The machine slows down to a half in the middle: both programs do, their ratio does not."""
    record = race(*({"a": 2000 * slow, "b": 1000 * slow} for slow in (1, 1, 2, 2)))
    found = racing.ratio(record, "a", "b")
    assert found == {
        "ratio": pytest.approx(2),
        "low": pytest.approx(2),
        "high": pytest.approx(2),
        "rounds": 4,
    }


def test_the_interval_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        noise = np.exp(generator.normal(0, 0.05, (8, 2)))
        record = race(*({"a": round(3_000_000 * x), "b": round(2_000_000 * y)} for x, y in noise))
        found = racing.ratio(record, "a", "b")
        held += found["low"] <= 1.5 <= found["high"]
    assert held / 400 == pytest.approx(racing.CONFIDENCE, abs=0.03)


def test_one_round_has_no_interval():
    found = racing.ratio(race({"a": 3000, "b": 2000}), "a", "b")
    assert (found["ratio"], found["low"], found["high"]) == (pytest.approx(1.5), None, None)


def test_disturbed_rounds_do_not_count_while_enough_others_are_there():
    rounds = [{"a": 1000}, {"a": 9000}, {"a": 1000}]
    record = race(*rounds, wanted=2, moved={1})
    assert racing.moved(record) == []
    assert max(racing.wall_ns(record, "a")) == 1001
    record = race(*rounds, wanted=3, moved={1})
    assert racing.moved(record) == ["disturbed in 1 of 3 rounds", "the clock fell"]
    assert max(racing.wall_ns(record, "a")) == 9001
