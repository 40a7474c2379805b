"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from toolchain import metrics
from toolchain.errors import UserError

SCORES = np.array([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])  # answers 1, 0, 0, 1


def test_top1_counts_right_answers():
    assert metrics.top1([SCORES], np.array([1, 0, 1, 0]), []) == 0.5
    batched = SCORES[:, None]  # [N, 1, classes], as programs give it
    assert metrics.top1([batched], np.array([1, 0, 1, 1]), []) == 0.75


def test_top1_takes_an_answer_for_each_position():
    sequence = SCORES.reshape(2, 2, 2)
    assert metrics.top1([sequence], np.array([[1, 0], [0, 0]]), []) == 0.75


def test_top1_needs_as_many_labels_as_answers():
    with pytest.raises(UserError, match="needs labels"):
        metrics.top1([SCORES], None, [])
    with pytest.raises(UserError, match=r"4 answers .* and 3 labels"):
        metrics.top1([SCORES], np.array([1, 0, 1]), [])


def test_agreement_is_with_the_float_model():
    other = SCORES.copy()
    other[0] = [0.9, 0.1]
    assert metrics.agreement([other], None, [SCORES]) == 0.75
    assert metrics.agreement([SCORES], None, [SCORES]) == 1.0


def test_sqnr():
    signal = np.array([3.0, 4.0], dtype=np.float32)  # power 25
    assert metrics.sqnr_db(signal, signal + np.array([0.0, 0.5])) == pytest.approx(20.0)
    assert metrics.sqnr_db(signal, signal) == math.inf
    assert metrics.sqnr_db(signal * 0, signal) == -math.inf
    assert math.isnan(metrics.sqnr_db(signal, np.array([math.nan, 4.0])))
    assert math.isnan(metrics.sqnr_db(signal, np.array([math.inf, 4.0])))


def test_sqnr_does_not_overflow_in_small_types():
    whole = np.array([200, 200], dtype=np.uint8)
    assert metrics.sqnr_db(whole, whole + np.uint8(20)) == pytest.approx(20.0)
    half = np.array([60000.0], dtype=np.float16)
    assert metrics.sqnr_db(half, half * np.float16(0.9)) == pytest.approx(20.0, abs=0.1)


def test_names_are_looked_up(tmp_path):
    assert metrics.find("top1", tmp_path) is metrics.top1
    with pytest.raises(UserError, match=r"unknown metric 'topl'\n.*'top1'"):
        metrics.find("topl", tmp_path)
    metrics.check_name("data.py:metric", "here")
    with pytest.raises(UserError, match="here: unknown metric"):
        metrics.check_name("x", "here")


def test_a_recipe_has_a_metric_of_its_own(tmp_path):
    (tmp_path / "parts.py").write_text("offset = 1\n")
    (tmp_path / "data.py").write_text(
        "def metric(outputs, labels):\n"
        "    from parts import offset\n"
        "    return (outputs[0] == labels).mean() + offset\n"
        "def words(outputs, labels): return 'good'\n"
        "def fails(outputs, labels):\n    return outputs[7]\n"
    )
    own = metrics.find("data.py:metric", tmp_path)
    assert own([np.array([1, 2])], np.array([1, 3]), []) == 1.5
    with pytest.raises(UserError, match=r"data\.py:words: gave a str"):
        metrics.find("data.py:words", tmp_path)([], None, [])
    with pytest.raises(UserError, match=r"data\.py:6: IndexError"):
        metrics.find("data.py:fails", tmp_path)([], None, [])


def test_a_single_column_holds_no_classes():
    """An argmax over one score would agree with everything."""
    scores = np.array([[[0.1]], [[0.9]]])
    with pytest.raises(UserError, match="holds no scores of classes"):
        metrics.agreement([scores], None, [scores])


def test_labels_outside_the_classes_are_refused():
    scores = np.eye(3)[:, None]
    with pytest.raises(UserError, match="from 1 to 3"):
        metrics.top1([scores], np.array([1, 2, 3]), [scores])


def test_a_metric_of_ones_own_that_is_not_finite_is_refused(tmp_path):
    (tmp_path / "data.py").write_text("def metric(outputs, labels):\n    return float('nan')\n")
    with pytest.raises(UserError, match="finite"):
        metrics.find("data.py:metric", tmp_path)([np.eye(2)], None, [np.eye(2)])
