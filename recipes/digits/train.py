"""Train the weights that are committed beside this file, in under a minute on two cores.

    python recipes/digits/train.py

The same seed, one thread and the same torch give the same file.
"""

from pathlib import Path

import torch
from data import images, split
from model import build
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy, pad

WEIGHTS = Path(__file__).with_name("weights.safetensors")
EPOCHS, BATCH = 60, 64


def shifted(batch: torch.Tensor) -> torch.Tensor:
    """Each image moved by at most one pixel in each direction."""
    padded = pad(batch, (1, 1, 1, 1))
    places = torch.randint(0, 3, (len(batch), 2)).tolist()
    return torch.stack([padded[i, :, y : y + 8, x : x + 8] for i, (y, x) in enumerate(places)])


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train, evaluation = split()
    pixels, labels = torch.from_numpy(images()), torch.from_numpy(load_digits().target)
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = EPOCHS * (len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    for _ in range(EPOCHS):
        shuffled = torch.from_numpy(train)[torch.randperm(len(train))]
        for batch in shuffled[: len(train) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(shifted(pixels[batch])), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        right = model(pixels[evaluation]).argmax(1) == labels[evaluation]
    save_file(model.state_dict(), WEIGHTS)
    print(f"top-1 on {len(right)} held-out images: {right.float().mean():.4f}; wrote {WEIGHTS}")


if __name__ == "__main__":
    main()
