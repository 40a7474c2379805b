"""Tiny ExecuTorch programs of every kind that the runner has to cope with.

    python -m toolchain.tests.tiny_programs FOLDER

writes NAME.pte and NAME.safetensors: `input.k` and, from eager torch, `output.k`, stacked over
samples. A process of its own, so that what torch warns of and holds in memory stays there.
"""

from __future__ import annotations

import sys
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
    write(
        folder / "every_dtype",
        Function(every_dtype),
        [
            (
                torch.tensor([1.5 + k], dtype=torch.float64),
                torch.tensor([[0.5], [k]], dtype=torch.float16),
                torch.tensor([2**40 + k, -1], dtype=torch.int64),
                torch.tensor([-(2**20) - k], dtype=torch.int32),
                torch.tensor([-300 + k], dtype=torch.int16),
                torch.tensor([-k, 1, 2], dtype=torch.int8),
                torch.tensor([[100 + k]], dtype=torch.uint8),
                torch.tensor([True, k == 1], dtype=torch.bool),
            )
            for k in range(SAMPLES)
        ],
    )
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
    write(folder / "not_a_tensor", Function(lambda a, n: a + n), [(torch.randn(3), 3)], save=False)
    write(folder / "no_input", Function(lambda: torch.ones(2) * 2), [()], save=False)


def write(
    path: Path,
    net: nn.Module,
    samples: list[tuple[Any, ...]],
    *,
    delegate: bool = False,
    config: ExecutorchBackendConfig | None = None,
    save: bool = True,
) -> None:
    exported = torch.export.export(net.eval(), samples[0])
    partitioners = [XnnpackPartitioner()] if delegate else []
    edge = to_edge_transform_and_lower(exported, partitioner=partitioners)
    path.with_suffix(".pte").write_bytes(edge.to_executorch(config).buffer)
    if not save:
        return
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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
