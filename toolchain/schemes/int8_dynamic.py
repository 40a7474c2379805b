"""Dynamic quantization: int8 weights, and activations whose range is found at each inference.

No calibration data is needed; linear layers gain most, and so do LSTM and GRU, which are unrolled
into linear layers. https://docs.pytorch.org/ao/stable/pt2e_quantization/pt2e_quant_ptq.html
On XNNPACK the range is found for each row of the activations (each token of a sentence).

    [variants.int8]
    scheme     = "int8_dynamic"
    embeddings = true
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from toolchain import pt2e, tokens, weights
from toolchain.material import Material, Quantized
from toolchain.selection import Selection

if TYPE_CHECKING:
    import torch

    from toolchain.backends import Backend

NEEDS = "dynamic"
USES: frozenset[str] = frozenset()


class Options(Selection):
    """granularity of the weights: one scale for each output channel, or one for the whole tensor.
    mapping of the activations: affine (with a zero point) or symmetric (zero point 0); if absent,
        as the backend does it, affine where it can do both.
    embeddings: whether embedding tables are int8 too, with a scale for each row.
    skip, only: see `toolchain.selection`.
    """

    granularity: Literal["per_channel", "per_tensor"] = "per_channel"
    mapping: Literal["affine", "symmetric"] | None = None
    embeddings: bool = False


def quantize(
    model: torch.export.ExportedProgram, options: Options, backend: Backend, _material: Material
) -> Quantized:
    """`model` with int8 weights, and activations that are rounded to int8 as they come."""
    mapping = options.mapping or backend.ABILITIES[NEEDS].get("mapping", ("affine",))[0]
    wanted = quantizer(backend, options.takes, options.embeddings, options.granularity, mapping)
    # Observers of weights are filled by any input.
    program = pt2e.post_training(model, wanted, options, [pt2e.example(model)])
    if "per_token" in backend.ABILITIES[NEEDS].get("activations", ()):
        program = tokens.per_token(program)
    return Quantized(program)


def quantizer(
    backend: Backend,
    takes: Callable[[Any], bool],
    embeddings: bool,
    granularity: str = "per_channel",
    mapping: str = "affine",
) -> Any:
    """The backend's own for dynamic activations, and one for embedding tables."""
    dynamic = backend.quantizer(
        activations="dynamic", granularity=granularity, mapping=mapping, takes=takes
    )
    if not embeddings:
        return dynamic
    tables = weights.quantizer(
        frozenset({weights.EMBEDDING}), granularity="per_channel", takes=takes
    )
    return weights.together(tables, dynamic)
