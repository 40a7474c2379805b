"""A process of its own for what torch reads from its environment once, before it does anything.

oneDNN looks at ONEDNN_MAX_CPU_ISA when it is first used, and Inductor at its folders when it is
imported: a process that has used them cannot take another floor.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from toolchain.errors import InfraError
from toolchain.parent import end_with

ADDR_NO_RANDOMIZE, UNCHANGED = 0x0040000, 0xFFFFFFFF  # of personality(2)

T = TypeVar("T")


def call(function: Callable[..., T], *arguments: object, environment: Mapping[str, str]) -> T:
    """What `function` gives in a new process with these variables; its errors are raised here.

    function: of a module that does not import torch before it is called. arguments: neither do
    they. InfraError if the process dies.
    """
    context = multiprocessing.get_context("spawn")
    starting = (1, context, end_with, (os.getpid(),))
    with _same_addresses(), ProcessPoolExecutor(*starting) as pool:
        try:
            return pool.submit(_called, function, arguments, dict(environment)).result()
        except BrokenProcessPool:
            raise InfraError(
                "the process that torch worked in has died",
                where=f"{function.__module__}.{function.__name__}",
                hint="out of memory? dmesg tells",
            ) from None


@contextmanager
def _same_addresses() -> Iterator[None]:
    """Let processes that are started have the same addresses each time.

    What oneDNN says of packed weights, which goes into programs, has gaps that it leaves as they
    are: bytes of addresses on the stack. Where the kernel is not allowed to do so, they vary.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = libc.personality(UNCHANGED)
    libc.personality(before | ADDR_NO_RANDOMIZE)
    try:
        yield
    finally:
        libc.personality(before)


def _called(
    function: Callable[..., T], arguments: tuple[object, ...], environment: dict[str, str]
) -> T:
    os.environ.update(environment)
    return function(*arguments)
