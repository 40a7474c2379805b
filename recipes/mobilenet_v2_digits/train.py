"""Train the weights that are committed beside this file.

    python recipes/mobilenet_v2_digits/train.py

The same seed, one thread and the same torch give the same file. The training is that of the
paper's authors (arXiv:1801.04381, 6.1, and their code), shortened: RMSProp with momentum, an
epsilon of 0.001 in batch-norms, and a weight decay of which depthwise filters are free. It leaves
some channels with little variance, which batch-norm amplifies (Sheng et al., arXiv:1803.08607):
folded depthwise filters differ a hundredfold from channel to channel, for which MobileNets are
known as hard to quantize with one scale for each tensor. Trained by SGD or by Adam, with torch's
epsilon of 1e-5, this network was not.
"""

import tomllib
from pathlib import Path

import torch
from augment import shifted
from data import images, split
from model import build
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights.safetensors"
SETTINGS = tomllib.loads((HERE / "recipe.toml").read_text("utf-8"))["training"]
WEIGHT_DECAY = 4e-5


def decayed(model: nn.Module) -> list[dict[str, object]]:
    """The parameters in two groups: dense filters, which decay, and the rest, which does not."""
    dense = [
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    ]
    known = {id(weight) for weight in dense}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
    return [{"params": dense, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SETTINGS["seed"])
    train, evaluation = split()
    pixels, labels = torch.from_numpy(images()), torch.from_numpy(load_digits().target)
    epochs, batch_size = SETTINGS["epochs"], SETTINGS["batch"]
    # Channels last: training takes half the time.
    model = build().to(memory_format=torch.channels_last)
    optimizer = torch.optim.RMSprop(decayed(model), alpha=0.9, momentum=0.9, eps=1e-3)
    steps = len(train) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, SETTINGS["rate"], total_steps=epochs * steps, cycle_momentum=False
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
    model.to(memory_format=torch.contiguous_format)  # as they are stored
    save_file(model.state_dict(), WEIGHTS)
    print(f"top-1 on {len(right)} held-out images: {right.float().mean():.4f}; wrote {WEIGHTS}")


if __name__ == "__main__":
    main()
