"""Ways of quantizing a model. One file is one scheme, named as recipes name it.

A scheme's module imports torch only inside its functions: the catalog decodes its options without
torch. It has

    class Options(schema.Frozen)      the keys that a variant may give, beside `scheme`
    NEEDS: str                        what its backend must be able to do (see `Backend.ABILITIES`)
    USES: frozenset[str]              of `calibration` and `training`: data of the recipe
    def quantize(model, options, backend, material) -> Quantized

model: ExportedProgram, float, as `backend.prepare` made it. backend: the module of
`toolchain.backends`, which knows its own quantizer. material: the data that the scheme uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from toolchain import plugins, schema
from toolchain.errors import UserError

if TYPE_CHECKING:
    import torch

    from toolchain.backends import Abilities, Backend
    from toolchain.material import Material, Quantized


FLOATS = ("float", "float16")  # `NEEDS` of schemes that put no integers into a program


class Scheme(Protocol):
    """What each file of this folder has."""

    __file__: str
    Options: type[schema.Frozen]
    NEEDS: str
    USES: frozenset[str]

    def quantize(
        self,
        model: torch.export.ExportedProgram,
        options: schema.Frozen,
        backend: Backend,
        material: Material,
    ) -> Quantized: ...


def names() -> list[str]:
    return plugins.names(__path__)


def load(name: str) -> Scheme:
    return cast(Scheme, plugins.load(__name__, __path__, name))


def check_able(
    name: str, options: Mapping[str, Any], backend: str, able: Abilities, where: str
) -> None:
    """Refuse a scheme, or a value of an option, that a backend cannot do; tell what it can.

    An option that is None leaves it to the backend.
    """
    need = load(name).NEEDS
    if need not in able:
        good = [scheme for scheme in names() if load(scheme).NEEDS in able]
        raise UserError(
            f"the backend '{backend}' cannot do the scheme '{name}'",
            where=f"{where}.scheme",
            hint=f"it can do: {', '.join(good)}",
        )
    for key, values in able[need].items():
        if options.get(key) is not None and options[key] not in values:
            raise UserError(
                f"the backend '{backend}' cannot do {key} = {_toml(options[key])} "
                f"with the scheme '{name}'",
                where=f"{where}.{key}",
                hint=f"it can do: {', '.join(map(_toml, values))}",
            )


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
