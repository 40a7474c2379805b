"""Whether processes have ended."""

from __future__ import annotations

import time
from pathlib import Path

import pytest


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int) -> None:
    """Wait a few seconds for the end of a process; without it, the test fails."""
    end = time.monotonic() + 5
    while alive(pid):
        if time.monotonic() > end:
            pytest.fail(f"process {pid} is still there")
        time.sleep(0.02)
