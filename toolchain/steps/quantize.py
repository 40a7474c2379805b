"""Quantize an exported program by a scheme."""

from __future__ import annotations

import json
from pathlib import Path

from toolchain import backends, programs, reach, schemes
from toolchain.atomic import write_bytes, write_json
from toolchain.errors import UserError
from toolchain.material import Material
from toolchain.schema import Variant, decode_json, shown
from toolchain.steps.main import NONE, step
from toolchain.training import material as training_material


def run(
    *,
    model: Path,
    variant: Path,
    backend: str,
    out: Path,
    notes: Path,
    calibration: Path = NONE,
    training: Path = NONE,
    samples: Path = NONE,
    settings: Path = NONE,
    folder: Path = NONE,
) -> None:
    """Write the program quantized as `variant` says, and the scheme's notes.

    training, samples, settings, folder: the model in training mode, what it is trained on, the
    recipe's `Training`, and the folder of the recipe, whose functions that names.
    """
    programs.prepare_torch()
    wanted = decode_json(Variant, variant)
    scheme, lowering = schemes.load(wanted.scheme), backends.load(backend)
    for use, given in (("calibration", calibration), ("training", training)):
        if use in scheme.USES and given == NONE:
            raise UserError(f"the scheme '{wanted.scheme}' needs it", where=f"--{use}")
    material = Material(
        programs.samples(calibration) if calibration != NONE else (),
        training_material(training, samples, settings, folder) if training != NONE else None,
    )
    options = scheme.Options.model_validate_json(json.dumps(wanted.options))
    made = scheme.quantize(lowering.prepare(programs.from_file(model)), options, lowering, material)
    if scheme.NEEDS not in schemes.FLOATS and not reach.is_quantized(made.program):
        raise UserError(
            f"the scheme '{wanted.scheme}' found nothing to quantize in {shown(model)}",
            hint=f"{backend} quantizes: {', '.join(sorted(lowering.quantizable(scheme.NEEDS)))}",
        )
    write_bytes(out, programs.to_bytes(made.program))
    write_json(notes, dict(made.notes))


if __name__ == "__main__":
    step(run)
