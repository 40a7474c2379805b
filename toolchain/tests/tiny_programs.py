"""Tiny programs of every kind that the runner has to cope with.

    python -m toolchain.tests.tiny_programs FOLDER [torch | openvino]

writes NAME.pte (or .pt2, .ir.tar) and NAME.safetensors: `input.k` and, from eager torch,
`output.k`, stacked over samples. A process of its own, so that what torch warns of and holds in
memory stays there.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes import MemoryPlanningPass
from safetensors.numpy import save_file
from torch import nn

from toolchain import runtimes

UNPLANNED = ExecutorchBackendConfig(
    memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=False)
)
SAMPLES = 3


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def convolution() -> nn.Module:
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, 3))


def pick(table: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return table[:, at].sum(-1), at + 1


def every_dtype(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(torch.logical_not(t) if t.dtype == torch.bool else t + t for t in tensors)


def every_dtype_samples(large: int = 2**40) -> list[tuple[torch.Tensor, ...]]:
    return [
        (
            torch.tensor([1.5 + k], dtype=torch.float64),
            torch.tensor([[0.5], [k]], dtype=torch.float16),
            torch.tensor([large + k, -1], dtype=torch.int64),
            torch.tensor([-(2**20) - k], dtype=torch.int32),
            torch.tensor([-300 + k], dtype=torch.int16),
            torch.tensor([-k, 1, 2], dtype=torch.int8),
            torch.tensor([[100 + k]], dtype=torch.uint8),
            torch.tensor([True, k == 1], dtype=torch.bool),
        )
        for k in range(SAMPLES)
    ]


def scalars(a: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return a * s, a > 0, s * 2


def channels_last(a: torch.Tensor) -> torch.Tensor:
    return torch.relu(a).to(memory_format=torch.channels_last)


def main(folder: Path) -> None:
    torch.manual_seed(0)
    image = [(torch.randn(1, 3, 4, 5),) for _ in range(SAMPLES)]
    picks = [(torch.randn(2, 5), torch.tensor([0, 3, k])) for k in range(SAMPLES)]
    write(folder / "delegated", convolution(), [(torch.randn(1, 1, 8, 8),) for _ in range(SAMPLES)],
          delegate=True)  # fmt: skip
    write(folder / "pick", Function(pick), picks)
    write(folder / "unplanned", Function(pick), picks, config=UNPLANNED)
    write(folder / "channels_last_out", Function(channels_last), image)
    write(
        folder / "channels_last_in",
        Function(torch.relu),
        [(a.to(memory_format=torch.channels_last),) for (a,) in image],
    )
    write(
        folder / "scalars",
        Function(scalars),
        [(torch.randn(2, 3), torch.tensor(k + 0.5)) for k in range(SAMPLES)],
    )
    write(folder / "every_dtype", Function(every_dtype), every_dtype_samples())
    write(
        folder / "passed_through",
        Function(lambda a: (a, a + 1)),
        [(torch.randn(3),) for _ in range(SAMPLES)],
    )
    write(
        folder / "data_dependent",
        Function(torch.nonzero),
        [(torch.tensor([1.0, 0.0, 2.0 + k]),) for k in range(SAMPLES)],
    )
    write(folder / "not_a_tensor", Function(lambda a, n: a + n), [(torch.randn(3), 3)], kept=False)
    write(folder / "no_input", Function(lambda: torch.ones(2) * 2), [()], kept=False)


def write(
    path: Path,
    net: nn.Module,
    samples: list[tuple[Any, ...]],
    *,
    delegate: bool = False,
    config: ExecutorchBackendConfig | None = None,
    kept: bool = True,
) -> None:
    exported = torch.export.export(net.eval(), samples[0])
    partitioners = [XnnpackPartitioner()] if delegate else []
    edge = to_edge_transform_and_lower(exported, partitioner=partitioners)
    path.with_suffix(".pte").write_bytes(edge.to_executorch(config).buffer)
    if kept:
        save(path, net, samples)


def save(path: Path, net: nn.Module, samples: list[tuple[Any, ...]]) -> None:
    """Inputs, and outputs of eager torch."""
    with torch.no_grad():
        results = [net(*sample) for sample in samples]
    outputs = [result if isinstance(result, tuple) else (result,) for result in results]
    save_file(
        {**stacked("input", samples), **stacked("output", outputs)},
        path.with_suffix(".safetensors"),
    )


def stacked(name: str, samples: list[tuple[Any, ...]]) -> dict[str, Any]:
    columns = zip(*samples, strict=True)
    return {
        f"{name}.{k}": np.stack([t.contiguous().numpy() for t in column])
        for k, column in enumerate(columns)
    }


def mixed(a: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """A scalar, an output that is not in C order, and an operator that is left to libtorch."""
    return channels_last(a) * s, torch.sort(a)[0]


def compiled(runtime: str) -> dict[str, tuple[nn.Module, list[tuple[Any, ...]]]]:
    """The programs that are made for other runtimes than ExecuTorch, with their samples."""
    large = 2**20 if runtime == "openvino" else 2**40  # its CPU plugin computes int64 as int32
    torch.manual_seed(0)
    image = [torch.randn(1, 3, 4, 5) for _ in range(SAMPLES)]
    return {
        "convolution": (convolution(), [(torch.randn(1, 1, 8, 8),) for _ in range(SAMPLES)]),
        "pick": (
            Function(pick),
            [(torch.randn(2, 5), torch.tensor([0, 3, k])) for k in range(SAMPLES)],
        ),
        "every_dtype": (Function(every_dtype), every_dtype_samples(large)),
        "mixed": (Function(mixed), [(a, torch.tensor(k + 0.5)) for k, a in enumerate(image)]),
    }


def write_torch(path: Path, net: nn.Module, samples: list[tuple[Any, ...]]) -> None:
    """A package of AOTInductor that tells its inputs, and times of its kernels."""
    inputs = runtimes.torch_inputs([(str(t.dtype)[6:], t.shape) for t in samples[0]])
    torch._inductor.aoti_compile_and_package(
        torch.export.export(net.eval(), samples[0]),
        package_path=str(path.with_suffix(".pt2")),
        inductor_configs={
            "freezing": True,
            "cpp.enable_kernel_profile": True,
            "aot_inductor.metadata": {runtimes.TORCH_INPUTS: inputs},
        },
    )
    save(path, net, samples)


def write_openvino(path: Path, net: nn.Module, samples: list[tuple[Any, ...]]) -> None:
    """OpenVINO's representation as a tar archive."""
    import openvino

    model = openvino.convert_model(
        torch.export.export(net.eval(), samples[0]), input=[list(t.shape) for t in samples[0]]
    )
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(model, Path(folder) / "model.xml", compress_to_fp16=False)
        archive = path.with_suffix(".ir.tar")
        with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name in ("model.xml", "model.bin"):
                tar.add(Path(folder) / name, name)
    save(path, net, samples)


WRITERS = {"torch": write_torch, "openvino": write_openvino}

if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        with torch.no_grad():
            for program, (network, samples_of_it) in compiled(sys.argv[2]).items():
                WRITERS[sys.argv[2]](Path(sys.argv[1]) / program, network, samples_of_it)
