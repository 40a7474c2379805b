"""What the lowered program answers on this host: a device is to answer the same."""

from __future__ import annotations

from pathlib import Path

from toolchain import backends, programs
from toolchain.atomic import write_bytes
from toolchain.steps.main import step


def run(*, program: Path, backend: str, data: Path, out: Path) -> None:
    """Write the outputs of `program` over all samples of `data`: `output.k` [N, ...]."""
    programs.prepare_torch()
    outputs = backends.load(backend).run(program, programs.samples(data), programs.threads())
    write_bytes(out, programs.stacked(outputs))


if __name__ == "__main__":
    step(run)
