"""A program of OpenVINO as one file: its IR, model.xml and model.bin, in an uncompressed tar.

https://docs.openvino.ai/2025/documentation/openvino-ir-format.html
"""

from __future__ import annotations

import io
import re
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from toolchain.errors import UserError
from toolchain.openvino_ir.library import openvino
from toolchain.schema import shown

# In this order: the constants begin at a multiple of 512 bytes, and are used where they lie.
XML, BIN = "model.xml", "model.bin"


def packed(model: Any) -> bytes:
    """The tar of an `openvino.Model`, the same bytes for the same model in any process."""
    ov = openvino()
    _rename(model)
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        ov.save_model(model, Path(folder, XML), compress_to_fp16=False)
        files = {name: Path(folder, name).read_bytes() for name in (XML, BIN)}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def model_in(path: Path, core: Any) -> Any:
    """The `openvino.Model` in a file; UserError if there is none in it."""
    import numpy as np

    ov = openvino()
    try:
        with tarfile.open(path, "r:") as tar:
            xml, constants = (_content(tar, name) for name in (XML, BIN))
        weights = ov.Tensor(np.frombuffer(constants, np.uint8).copy())
        return core.read_model(model=xml, weights=weights)
    except (tarfile.TarError, KeyError, EOFError, RuntimeError) as error:
        first = str(error).strip().splitlines()[-1]
        raise UserError(
            f"OpenVINO cannot load it: {first}",
            where=shown(path),
            hint="it is cut short, or of another version; delete it and build again",
        ) from None


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(tar.getmember(name))
    if file is None:
        raise tarfile.ReadError(f"{name} is no file")
    return file.read()


def _rename(model: Any) -> None:
    """Number the names that OpenVINO makes up itself: it counts through the life of a process."""
    model.set_friendly_name("model")
    for number, node in enumerate(model.get_ordered_ops()):
        kind = node.get_type_name()
        if re.fullmatch(rf"{kind}_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{kind}_{number}")
