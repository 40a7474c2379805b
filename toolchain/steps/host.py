"""What the lowered program answers on this host: a device is to answer the same."""

from __future__ import annotations

from pathlib import Path

from toolchain import backends, programs
from toolchain.atomic import write_bytes
from toolchain.schema import Target, decode_json
from toolchain.steps.main import NONE, step


def run(*, program: Path, backend: str, data: Path, out: Path, target: Path = NONE) -> None:
    """Write the outputs of `program` over all samples of `data`: `output.k` [N, ...].

    target: for a backend whose programs are for one.
    """
    programs.prepare_torch()
    isa = decode_json(Target, target).isa if target != NONE else None
    samples, threads = programs.samples(data), programs.threads()
    outputs = backends.load(backend).run(program, samples, threads, isa)
    write_bytes(out, programs.stacked(outputs))


if __name__ == "__main__":
    step(run)
