"""Other runtimes. One file is one peer: how it makes its models, and how it runs them.

All of it runs in `.venv-benchmarks`; the peer's own packages are imported only in functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy.typing as npt

from toolchain import plugins

Array = npt.NDArray[Any]
Samples = Sequence[Sequence[Array]]  # of each sample its inputs, in the model's order
Operators = list[dict[str, Any]]  # name, type, calls, ns of one inference; the slowest first

CONVOLUTIONS, LINEARS = "convolutions", "linears"  # what a network mostly is
ANY = frozenset({CONVOLUTIONS, LINEARS})


class Session(Protocol):
    """A model that is loaded. What `infer` does not do is not in the times."""

    def give(self, inputs: Sequence[Array]) -> None:
        """Copy the inputs of one sample into the runtime's own memory."""

    def infer(self) -> None:
        """One inference, outputs into memory that is there already."""

    def take(self) -> list[Array]:
        """Copies of the outputs."""

    def operators(self) -> Operators:
        """Where the time of an inference goes. Of a session that was opened `profiled`."""


class Peer(Protocol):
    """What each file of this folder has.

    PACKAGES: distributions that make and run its models; another version makes them anew.
    SUFFIX: of its models.
    FORMS: how it can make a model -> for which networks that is worth a trial.
    PROFILES: whether it tells the time of its operators.
    """

    PACKAGES: tuple[str, ...]
    SUFFIX: str
    FORMS: Mapping[str, frozenset[str]]
    PROFILES: bool

    def convert(self, program: Any, samples: Samples, form: str, out: Path) -> None:
        """Write a model. program: torch's ExportedProgram, in float. samples: for calibration."""

    def open(self, model: Path, threads: int, profiled: bool) -> Session:
        """A model, loaded and ready; profiled: `operators` will be asked."""


def names() -> list[str]:
    return plugins.names(__path__)


def load(name: str) -> Peer:
    return cast(Peer, plugins.load(__name__, __path__, name))


def size(model: Path) -> int:
    """Bytes of a model, with the weights that stand in a file of the same stem beside it."""
    return sum(path.stat().st_size for path in model.parent.glob(f"{model.stem}.*"))
