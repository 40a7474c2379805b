"""Whoever takes times waits for all others, and they wait for it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from toolchain import quiet

OTHER = """
import sys, time
from contextlib import ExitStack
from toolchain import quiet
with ExitStack() as held:
    if "{kind}" == "many": held.enter_context(quiet.at_work())
    else: held.enter_context(quiet.alone(lambda: None))
    print("in", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def other(tmp_path, monkeypatch):
    """Start another process that holds the lock as one of `many`, or alone."""
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path))
    started = []

    def start(kind: str) -> subprocess.Popen[str]:
        made = subprocess.Popen(
            [sys.executable, "-c", OTHER.format(kind=kind)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(made)
        return made

    yield start
    for made in started:
        made.kill()
        made.communicate()


def entered(process, seconds):
    """Whether the process got the lock in that time."""
    import select

    return bool(select.select([process.stdout], [], [], seconds)[0])


def test_many_are_at_work_together(other):
    with quiet.at_work():
        assert entered(other("many"), 20)


@pytest.mark.parametrize("kind", ["many", "alone"])
def test_nobody_is_at_work_beside_the_one_that_takes_times(other, kind):
    with quiet.alone(lambda: None):
        waiting = other(kind)
        assert not entered(waiting, 1.5)
    assert entered(waiting, 20)


def test_times_are_taken_when_all_others_have_ended(other):
    told = []
    working = other("many")
    assert entered(working, 20)
    began = time.monotonic()

    def waiting():
        told.append("waits")
        working.stdin.write("\n")
        working.stdin.flush()

    with quiet.at_work(), quiet.alone(waiting):
        assert told == ["waits"]
        assert time.monotonic() - began < 20
        late = other("many")
        assert not entered(late, 1.5)
    assert entered(late, 20)


def test_a_killed_holder_leaves_no_lock(other):
    killed = other("alone")
    assert entered(killed, 20)
    killed.kill()
    with quiet.alone(lambda: None):
        pass
