"""Ways of quantizing a model. One file is one scheme, named as recipes name it.

A scheme's module imports torch only inside its functions: the catalog decodes its options without
torch. It has

    class Options(schema.Frozen)      the keys that a variant may give, beside `scheme`
    NEEDS_CALIBRATION: bool
    NEEDS: frozenset[str]             what its backend must be able to do (see `Backend.ABILITIES`)
    def quantize(model, options, backend, calibration) -> ExportedProgram

model: ExportedProgram, float. backend: the module of `toolchain.backends`, which knows its own
quantizer. calibration: tuples of input tensors, empty if the scheme needs none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from toolchain import plugins, schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from toolchain.backends import Backend


class Scheme(Protocol):
    """What each file of this folder has."""

    __file__: str
    Options: type[schema.Frozen]
    NEEDS_CALIBRATION: bool
    NEEDS: frozenset[str]

    def quantize(
        self,
        model: torch.export.ExportedProgram,
        options: schema.Frozen,
        backend: Backend,
        calibration: Sequence[tuple[torch.Tensor, ...]],
    ) -> torch.export.ExportedProgram: ...


def names() -> list[str]:
    return plugins.names(__path__)


def load(name: str) -> Scheme:
    return cast(Scheme, plugins.load(__name__, __path__, name))


def within(abilities: frozenset[str]) -> frozenset[str]:
    """The schemes that need nothing beyond `abilities`: a new scheme edits no list of names."""
    return frozenset(name for name in names() if abilities >= load(name).NEEDS)
