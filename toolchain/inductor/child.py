"""A process of its own for what torch reads from its environment once, before it does anything.

oneDNN looks at ONEDNN_MAX_CPU_ISA when it is first used, and Inductor at its folders when it is
imported: a process that has used them cannot take another floor.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from toolchain.errors import InfraError

PR_SET_PDEATHSIG = 1

T = TypeVar("T")


def call(function: Callable[..., T], *arguments: object, environment: Mapping[str, str]) -> T:
    """What `function` gives in a new process with these variables; its errors are raised here.

    function: of a module that does not import torch before it is called. arguments: neither do
    they. InfraError if the process dies.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            return pool.submit(_called, function, arguments, dict(environment)).result()
        except BrokenProcessPool:
            raise InfraError(
                "the process that torch worked in has died",
                where=f"{function.__module__}.{function.__name__}",
                hint="out of memory? dmesg tells",
            ) from None


def _called(
    function: Callable[..., T], arguments: tuple[object, ...], environment: dict[str, str]
) -> T:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.environ.update(environment)
    return function(*arguments)
