"""What can go wrong, and the one place that prints it.

    SlipwayError                 exit status
    ├── CheckFailed              1   the product does not hold what its recipe promises
    ├── UserError                2   a recipe, target, option or file has to be mended first
    └── InfraError               3   a device, the network or a tool broke; not the product

Each message says what is wrong, where, the good values or the nearest one, and the next command.
Any other exception is a defect of Slipway and keeps its traceback.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class SlipwayError(Exception):
    """Base of all errors that are shown as a message without a traceback."""

    exit_status = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  {self.hint}" if self.hint else text


class CheckFailed(SlipwayError):
    exit_status = 1


class UserError(SlipwayError):
    exit_status = 2


class InfraError(SlipwayError):
    exit_status = 3


def nearest(word: str, good: Iterable[str]) -> str:
    """A hint that names the good values, the nearest one first."""
    values = sorted(good)
    if not values:
        return "there are none"
    close = difflib.get_close_matches(word, values, n=1, cutoff=0.5)
    listed = ", ".join(values)
    return f"did you mean '{close[0]}'? Known: {listed}" if close else f"known: {listed}"


def show(error: SlipwayError) -> None:
    print(f"slipway: {error}", file=sys.stderr, flush=True)


@contextmanager
def shown() -> Iterator[None]:
    """Turn a SlipwayError into its message and exit status."""
    try:
        yield
    except SlipwayError as error:
        show(error)
        raise SystemExit(error.exit_status) from None
