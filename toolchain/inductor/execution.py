"""A compiled program's outputs on this host, by AOTInductor's own loader.

Runs in a process of its own (see `toolchain.inductor.child`).
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

from toolchain import programs
from toolchain.errors import UserError
from toolchain.schema import shown


def outputs(program: Path, samples: Path, threads: int) -> bytes:
    """The outputs for the samples in a file as the data step writes it, as one of the same form."""
    programs.prepare_torch()
    import torch
    from torch._inductor import aoti_load_package

    # It compares the CPU that a program was compiled for with this one, which is ahead of it.
    logging.getLogger("torch.export.pt2_archive._package").addFilter(
        lambda record: "Device information mismatch" not in record.getMessage()
    )
    torch.set_num_threads(threads)
    try:
        model = aoti_load_package(str(program), run_single_threaded=True)
        with warnings.catch_warnings(), torch.no_grad():
            given = programs.samples(samples)
            return programs.stacked([programs.leaves(model(*sample)) for sample in given])
    except RuntimeError as error:
        said = str(error).strip().splitlines()[0]
        raise UserError(
            f"AOTInductor cannot run it on this host: {said}",
            where=shown(program),
            hint="it is cut short, or of another version; delete it and build again",
        ) from None
