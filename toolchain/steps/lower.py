"""Lower a quantized program to what a backend's runtime loads, and report what it took over."""

from __future__ import annotations

from pathlib import Path

from toolchain import backends, programs
from toolchain.atomic import write_bytes, write_json
from toolchain.schema import Target, decode_json
from toolchain.steps.main import NONE, say, step


def run(*, quantized: Path, backend: str, out: Path, report: Path, target: Path = NONE) -> None:
    """Write the program for `backend`, and which operators are delegated and which are not.

    target: for a backend whose programs are for one.
    """
    programs.prepare_torch()
    isa = decode_json(Target, target).isa if target != NONE else None
    program, found = backends.load(backend).lower(programs.from_file(quantized), isa)
    left = found["operators"]["undelegated"]
    if left:
        listed = ", ".join(f"{count} {name}" for name, count in sorted(left.items()))
        say(f"{backend} leaves undelegated: {listed} ({found['delegates']} delegates)")
    for remark in found.get("remarks", ()):
        say(f"{backend}: {remark}")
    write_bytes(out, program)
    write_json(report, found)


if __name__ == "__main__":
    step(run)
