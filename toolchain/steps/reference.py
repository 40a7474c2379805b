"""What the float model answers on this host: accuracy on a device is measured against it."""

from __future__ import annotations

from pathlib import Path

from toolchain import programs
from toolchain.atomic import write_bytes
from toolchain.errors import UserError
from toolchain.steps.main import step


def run(*, model: Path, data: Path, out: Path) -> None:
    """Write the outputs of the exported `model` over all samples of `data`: `output.k` [N, ...]."""
    programs.prepare_torch()
    import torch

    module = programs.from_file(model).module()
    with torch.no_grad():
        outputs = [programs.leaves(module(*sample)) for sample in programs.samples(data)]
    for number, sample in enumerate(outputs):
        if not all(torch.isfinite(tensor).all() for tensor in sample):
            raise UserError(
                f"the float model's outputs of evaluation sample {number} hold NaN or infinity",
                where=str(model),
                hint="nothing can be compared with that: mend the weights, or the model",
            )
    write_bytes(out, programs.stacked(outputs))


if __name__ == "__main__":
    step(run)
