"""Train the weights that are committed beside this file, in about four minutes on one core.

    python recipes/unet_digits/train.py

The same seed, one thread and the same torch give the same file.
"""

import tomllib
from pathlib import Path

import numpy as np
import torch
from augment import exposed
from data import GROUND, evaluation, training
from loss import loss
from metric import mean_iou
from model import CLASSES, UNet, build
from safetensors.torch import save_file

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights.safetensors"
SETTINGS = tomllib.loads((HERE / "recipe.toml").read_text("utf-8"))["training"]


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SETTINGS["seed"])
    images, labels = (torch.from_numpy(np.stack(part)) for part in zip(*training(), strict=True))
    images = images[:, 0]
    epochs, batch_size = SETTINGS["epochs"], SETTINGS["batch"]
    # Channels last: training takes less time.
    model = build().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = len(images) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, SETTINGS["rate"], total_steps=epochs * steps
    )
    for epoch in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(images))[: steps * batch_size].split(batch_size):
            optimizer.zero_grad()
            value = loss(model(exposed(images[batch])), labels[batch])
            value.backward()
            optimizer.step()
            schedule.step()
            total += value.item()
        print(f"epoch {epoch + 1} of {epochs}: loss {total / steps:.4f}")
    model.eval().to(memory_format=torch.contiguous_format)  # as they are stored
    save_file(model.state_dict(), WEIGHTS)
    report(model)


def report(model: UNet) -> None:
    """The held-out quality, beside that of an answer which needs no model: all is ground."""
    images, labels = (np.stack(part) for part in zip(*evaluation(), strict=True))
    with torch.no_grad():
        classes = model(torch.from_numpy(images[:, 0]))[0].numpy()[:, None]
    ground = np.zeros_like(classes)
    ground[:, :, GROUND] = 1
    assert classes.shape[2] == CLASSES
    print(
        f"mean IoU on {len(images)} held-out scenes: {mean_iou([classes], labels):.4f} "
        f"(all ground: {mean_iou([ground], labels):.4f}); wrote {WEIGHTS}"
    )


if __name__ == "__main__":
    main()
