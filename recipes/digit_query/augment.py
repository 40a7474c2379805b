"""How training varies its inputs."""

import torch
from torch.nn.functional import pad


def shifted(images: torch.Tensor, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """images [N, 1, H, W]: each moved by at most one pixel in each direction; queries stay."""
    height, width = images.shape[2:]
    padded = pad(images, (1, 1, 1, 1))
    places = torch.randint(0, 3, (len(images), 2)).tolist()
    moved = [padded[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(places)]
    return torch.stack(moved), queries
