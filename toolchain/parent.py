"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal

from toolchain.errors import InfraError

PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Let the kernel end this process when its parent dies, even by SIGKILL."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the call above
        raise SystemExit(InfraError.exit_status)
