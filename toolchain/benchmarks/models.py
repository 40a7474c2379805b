"""Float programs for the peers where the recipe's own is not the one to give them.

`empty` is a model that does next to nothing: its times are what a call from Python costs a peer.
A function named as a recipe is its model as the peers want it: a recipe may be written for one
backend, which another would pay for. It has to answer the same, which is checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain import loading, programs
from toolchain.atomic import write_bytes
from toolchain.errors import CheckFailed
from toolchain.metrics import sqnr_db
from toolchain.steps.main import step

if TYPE_CHECKING:
    import torch

EMPTY = "empty"
SAME_DB = 80.0  # SQNR from which on two ways of computing in float32 are the same model


def run(*, model: str, folder: Path, samples: Path, reference: Path, out: Path) -> None:
    """Export the model of that name to `out`.

    folder: of the recipe. samples, reference: inputs, and what the recipe's own model answers.
    """
    programs.prepare_torch()
    import safetensors.torch
    import torch

    given = programs.samples(samples)
    with loading.importable(folder), torch.no_grad():
        module = STANDARD[model](folder)
        answers = torch.stack([module(*sample) for sample in given])
        exported = torch.export.export(module, given[0])
    wanted = safetensors.torch.load_file(reference)["output.0"]
    if not (near := sqnr_db(wanted.numpy(), answers.numpy())) > SAME_DB:
        raise CheckFailed(f"is another model than the recipe's: {near:.1f} dB", where=model)
    write_bytes(out, programs.to_bytes(exported))


def minilm(folder: Path) -> torch.nn.Module:
    """The recipe's network with torch's own layer normalization and attention.

    The recipe spells them for XNNPACK; the peers know the usual forms, and fuse them.
    """
    import torch
    from transformers import AttentionInterface

    built = loading.load("model.py:build", folder)()
    _restore_norms(built)

    def usual(
        _module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any
    ) -> tuple[torch.Tensor, None]:
        mixed = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask[:, None], scale=scaling
        )
        return mixed.transpose(1, 2).contiguous(), None

    AttentionInterface.register("minilm", usual)
    return built.eval()  # type: ignore[no-any-return]


def _restore_norms(module: Any) -> None:
    import torch

    for name, child in module.named_children():
        if type(child).__name__ == "LayerNorm" and not isinstance(child, torch.nn.LayerNorm):
            norm = torch.nn.LayerNorm(child.weight.shape, eps=child.eps)
            norm.weight, norm.bias = child.weight, child.bias
            setattr(module, name, norm)
        else:
            _restore_norms(child)


def empty(_folder: Path) -> torch.nn.Module:
    """[1] -> [1], one more."""
    import torch

    class Empty(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    return Empty()


STANDARD = {EMPTY: empty, "minilm": minilm}

if __name__ == "__main__":
    step(run)
