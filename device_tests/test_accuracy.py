"""Accuracy on the device; and on the host over all samples, where the device ran fewer.

An emulated board runs few samples of a slow model. The same program on the host runs them all.
"""

from limits import at_least, needed


def places(figures):
    """Figures of accuracy, and in words what they are of."""
    yield figures, f"on the device, over {figures['samples']} samples"
    host = figures["host"]
    if host["samples"] > figures["samples"]:
        yield host, f"on the host, over {host['samples']} samples"


def test_drop(figures, checks):
    for found, where in places(figures):
        needed(checks.max_drop, found["drop"], "drop")
        assert found["drop"] <= checks.max_drop, (
            f"the metric drops by {found['drop']:.4f} against the float model "
            f"(from {found['accuracy_float']:.4f} to {found['accuracy']:.4f}) {where}, "
            f"over the limit of {checks.max_drop}"
        )


def test_metric(figures, checks):
    needed(checks.min_metric, figures["accuracy"], "the metric")
    for found, where in places(figures):
        at_least(found["accuracy"], checks.min_metric, f"the metric {where}")


def test_sqnr(figures, checks):
    needed(checks.min_sqnr, figures["accuracy"], "SQNR")
    for found, where in places(figures):
        if not found["equal"]:  # there is no noise, and no ratio to it
            at_least(found["sqnr_db"], checks.min_sqnr, f"SQNR {where}", " dB")


def test_cosine(figures, checks):
    needed(checks.min_cosine, figures["min_cosine"], "cosine to float")
    for found, where in places(figures):
        at_least(found["min_cosine"], checks.min_cosine, f"least cosine to float {where}")
