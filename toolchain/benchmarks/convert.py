"""Make a peer's model of an exported float program. Runs in `.venv-benchmarks`.

python -m toolchain.benchmarks.convert --peer=openvino --form=float --program=model.pt2
    --calibration=calibration.safetensors --out=model.xml
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from toolchain.atomic import write_json
from toolchain.benchmarks import peers

FACTS = "conversion.json"


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("peer", "form"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("program", "calibration", "out"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    asked = parser.parse_args(words)
    run(asked.peer, asked.form, asked.program, asked.calibration, asked.out)


def run(peer: str, form: str, program: Path, calibration: Path, out: Path) -> None:
    """Write the model to `out`, whole or not at all, and its facts beside it."""
    import torch
    from safetensors.numpy import load_file

    from toolchain.samples import ordered

    exported = torch.export.load(io.BytesIO(program.read_bytes()))
    columns = ordered(load_file(calibration), "input.")
    samples = list(zip(*columns, strict=True))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        # A model may be two files, so that a folder is filled first.
        peers.load(peer).convert(exported, samples, form, Path(name) / out.name)
        for path in Path(name).iterdir():
            shutil.move(path, out.parent / path.name)
    write_json(out.parent / FACTS, {"bytes": peers.size(out)})


if __name__ == "__main__":
    main(sys.argv[1:])
