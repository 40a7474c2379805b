"""Accuracy on the device, and against the float model on the same samples."""

from limits import at_least, needed


def test_drop(figures, checks):
    needed(checks.max_drop, figures["drop"], "drop")
    assert figures["drop"] <= checks.max_drop, (
        f"the metric drops by {figures['drop']:.4f} against the float model "
        f"(from {figures['accuracy_float']:.4f} to {figures['accuracy']:.4f}), "
        f"over the limit of {checks.max_drop}"
    )


def test_metric(figures, checks):
    at_least(figures["accuracy"], checks.min_metric, "the metric")
