"""Train the weights that are committed beside this file.

    python recipes/charlstm/train.py

The same seed, one thread and the same torch give the same file.
"""

import tomllib
from pathlib import Path

import torch
from data import WINDOW, text, windows
from loss import next_character
from model import build
from safetensors.torch import save_file

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights.safetensors"
SETTINGS = tomllib.loads((HERE / "recipe.toml").read_text("utf-8"))["training"]
LARGEST_GRADIENT = 1.0  # Pascanu et al., arXiv:1211.5063


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SETTINGS["seed"])
    characters = torch.from_numpy(text("training"))
    # Windows from anywhere in the text, and not only those of data.py: it is varied so.
    everywhere = characters.unfold(0, WINDOW + 1, 1)
    batch_size = SETTINGS["batch"]
    steps = SETTINGS["epochs"] * (len(characters) // WINDOW // batch_size)
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, SETTINGS["rate"], total_steps=steps)
    for _ in range(steps):
        batch = everywhere[torch.randint(len(everywhere), (batch_size,))]
        optimizer.zero_grad()
        next_character(model(batch[:, :-1]), batch[:, 1:]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
    model.eval()
    inputs, labels = map(torch.from_numpy, windows("evaluation"))
    with torch.no_grad():
        scores = model(inputs)
    right = (scores.argmax(-1) == labels).float().mean()
    bits = next_character(scores, labels) / torch.log(torch.tensor(2.0))
    save_file(model.state_dict(), WEIGHTS)
    print(f"held-out text: top-1 {right:.4f}, {bits:.4f} bits per character; wrote {WEIGHTS}")


if __name__ == "__main__":
    main()
