"""What an inference costs on the device, and how much memory and space the product takes."""

from limits import at_most


def test_instructions(figures, checks):
    at_most(
        figures["instructions_per_inference"], checks.max_instructions, "instructions per inference"
    )


def test_model_size(figures, checks):
    at_most(figures["model_bytes"], checks.max_model_bytes, "the program", " bytes")


def test_bundle_size(figures, checks):
    at_most(figures["bundle_bytes"], checks.max_bundle_bytes, "the bundle", " bytes")


def test_peak_memory(figures, checks):
    at_most(figures["peak_rss_bytes"], checks.max_rss_bytes, "peak memory", " bytes")
