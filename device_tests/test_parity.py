"""The program computes on the device what it computes on the host."""

from limits import needed


def test_outputs_are_finite(figures):
    assert figures["parity"]["max_abs"] is not None, "outputs hold NaN or infinity"


def test_parity(figures, checks):
    needed(checks.parity, figures["parity"]["max_abs"], "parity")
    parity = figures["parity"]
    told = "all" if parity["sqnr_db"] is None else f"{parity['sqnr_db']:.1f} dB"
    if checks.parity == "exact":
        assert parity["exact"], (
            f"outputs differ from the host's by up to {parity['max_abs']:.3g} "
            f"({told}); the recipe wants them bit-exact"
        )
    else:
        same = parity["exact"] or parity["max_abs"] == 0  # 0.0 and -0.0 have other bits
        good = same or (parity["sqnr_db"] or float("-inf")) >= checks.parity
        assert good, f"outputs are at {told} of the host's, under the limit of {checks.parity:g} dB"
