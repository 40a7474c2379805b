"""What an inference costs on the device, and how much memory and space the product takes."""

import pytest
from limits import at_most


def test_instructions(figures, checks):
    at_most(
        figures["instructions_per_inference"], checks.max_instructions, "instructions per inference"
    )


def test_latency(figures, checks):
    latency = figures["latency_ms"]
    p50 = latency["p50"] if latency else None
    at_most(p50, checks.max_latency_ms, "latency (p50)", " ms")


def test_nothing_disturbed_the_times(figures):
    if figures["latency_moved"]:
        pytest.xfail("the times are not to be trusted: " + "; ".join(figures["latency_moved"]))


def test_model_size(figures, checks):
    at_most(figures["model_bytes"], checks.max_model_bytes, "the program", " bytes")


def test_bundle_size(figures, checks):
    at_most(figures["bundle_bytes"], checks.max_bundle_bytes, "the bundle", " bytes")


def test_peak_memory(figures, checks):
    at_most(figures["peak_rss_bytes"], checks.max_rss_bytes, "peak memory", " bytes")
