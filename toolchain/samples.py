"""Samples as the runner reads and writes them.

The runner's files are raw bytes, little endian, C order: for each sample its tensors, one after the
other. Here the same samples are arrays stacked over the samples: `input.0` of shape [N, ...].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from toolchain.atomic import damaged
from toolchain.errors import InfraError, UserError

Array = npt.NDArray[Any]
Spec = Mapping[str, Any]  # {"dtype": "float32", "shape": [1, 3]}, as the runner reports it


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """UserError for a safetensors file that is not as a step wrote it."""
    try:
        yield
    except (SafetensorError, ValueError) as error:
        raise damaged(path, error) from None


def load(path: Path) -> dict[str, Array]:
    """The arrays of a safetensors file that a step wrote."""
    with reading(path):
        return load_file(path)


def ordered(tensors: Mapping[str, Array], prefix: str) -> list[Array]:
    """`<prefix>0`, `<prefix>1`, …"""
    names = [name for name in tensors if name.startswith(prefix)]
    return [tensors[name] for name in sorted(names, key=lambda n: int(n.removeprefix(prefix)))]


def to_bin(tensors: Mapping[str, Array], prefix: str = "input.") -> bytes:
    """The tensors named `<prefix>k` as one file of the runner."""
    arrays = ordered(tensors, prefix)
    if not arrays:
        raise UserError(f"there are no tensors named {prefix}0, {prefix}1, …")
    counts = {len(array) for array in arrays}
    if len(counts) > 1:
        raise UserError(f"the tensors {prefix}k hold different numbers of samples: {counts}")
    rows = [_rows(array) for array in arrays]
    return np.concatenate(rows, axis=1).tobytes()


def from_bin(data: bytes, specs: Sequence[Spec], prefix: str = "output.") -> dict[str, Array]:
    """A file of the runner as `<prefix>k` of shape [N, *specs[k]["shape"]].

    numpy has no bfloat16: such a tensor becomes float32, which holds each of its values.
    """
    sizes = [_itemsize(spec["dtype"]) * int(np.prod(spec["shape"], dtype=int)) for spec in specs]
    sample = sum(sizes)
    if sample == 0 or len(data) % sample:
        raise InfraError(f"{len(data)} bytes are no whole number of samples of {sample} bytes")
    rows = np.frombuffer(data, np.uint8).reshape(-1, sample)
    columns = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
    return {
        f"{prefix}{k}": _array(column, spec)
        for k, (column, spec) in enumerate(zip(columns, specs, strict=True))
    }


def specs_of(tensors: Mapping[str, Array], prefix: str) -> list[dict[str, Any]]:
    """dtype and shape of one sample of each tensor named `<prefix>k`."""
    return [
        {"dtype": array.dtype.name, "shape": list(array.shape[1:])}
        for array in ordered(tensors, prefix)
    ]


def _rows(array: Array) -> npt.NDArray[np.uint8]:
    """The bytes of each sample."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return np.frombuffer(little.tobytes(), np.uint8).reshape(len(array), -1)


def _array(rows: npt.NDArray[np.uint8], spec: Spec) -> Array:
    shape = (len(rows), *spec["shape"])
    data = np.ascontiguousarray(rows).tobytes()
    if spec["dtype"] == "bfloat16":
        bits = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return bits.view(np.float32).reshape(shape)
    dtype = np.dtype(spec["dtype"]).newbyteorder("<")
    return np.frombuffer(data, dtype).astype(dtype.newbyteorder("=")).reshape(shape)


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
