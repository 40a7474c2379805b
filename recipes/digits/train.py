"""Train the weights that are committed beside this file, in under a minute on two cores.

    python recipes/digits/train.py

The same seed, one thread and the same torch give the same file.
"""

import tomllib
from pathlib import Path

import torch
from augment import shifted
from data import images, split
from model import build
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights.safetensors"
SETTINGS = tomllib.loads((HERE / "recipe.toml").read_text("utf-8"))["training"]


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SETTINGS["seed"])
    epochs, batch_size = SETTINGS["epochs"], SETTINGS["batch"]
    train, evaluation = split()
    pixels, labels = torch.from_numpy(images()), torch.from_numpy(load_digits().target)
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = len(train) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, SETTINGS["rate"], total_steps=epochs * steps
    )
    for _ in range(epochs):
        shuffled = torch.from_numpy(train)[torch.randperm(len(train))]
        for batch in shuffled[: steps * batch_size].split(batch_size):
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
