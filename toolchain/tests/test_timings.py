"""Where a build's time went."""

from __future__ import annotations

from toolchain.timings import Timings


def test_the_costliest_kind_of_step_comes_first():
    timings = Timings()
    for verb, seconds in (("export", 3.0), ("lower", 20.0), ("lower", 30.0)):
        timings.add(verb, seconds)
    assert timings.line(40.0) == "time: 40 s; lower 2x 50 s, export 1x 3 s"


def test_a_short_build_says_nothing():
    timings = Timings()
    timings.add("export", 3.0)
    assert timings.line(3.0) == ""
