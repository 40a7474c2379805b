"""Train the weights that are committed beside this file, in under two minutes on one core.

    python recipes/digit_query/train.py

The same seed, one thread and the same torch give the same file.
"""

import tomllib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from augment import shifted
from data import Inputs, evaluation, training
from model import build
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights.safetensors"
SETTINGS = tomllib.loads((HERE / "recipe.toml").read_text("utf-8"))["training"]


def tensors(samples: Iterable[tuple[Inputs, int]]) -> tuple[torch.Tensor, ...]:
    """Images [N, 1, 8, 8], queries [N] and labels [N]."""
    images, queries, labels = zip(*((*inputs, [label]) for inputs, label in samples), strict=True)
    return tuple(torch.from_numpy(np.concatenate(part)) for part in (images, queries, labels))


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SETTINGS["seed"])
    images, queries, labels = tensors(training())
    epochs, batch_size = SETTINGS["epochs"], SETTINGS["batch"]
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = len(labels) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, SETTINGS["rate"], total_steps=epochs * steps
    )
    for _ in range(epochs):
        for batch in torch.randperm(len(labels))[: steps * batch_size].split(batch_size):
            optimizer.zero_grad()
            answers = model(*shifted(images[batch], queries[batch]))
            cross_entropy(answers, labels[batch]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    save_file(model.state_dict(), WEIGHTS)
    images, queries, labels = tensors(evaluation())
    with torch.no_grad():
        right = (model(images, queries).argmax(1) == labels).float().mean()
    always = labels.bincount().max() / len(labels)
    print(
        f"top-1 on {len(labels)} held-out pairs: {right:.4f} "
        f"(always the commoner answer: {always:.4f}); wrote {WEIGHTS}"
    )


if __name__ == "__main__":
    main()
