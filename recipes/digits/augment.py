"""How training varies its images."""

import torch
from torch.nn.functional import pad


def shifted(batch: torch.Tensor) -> torch.Tensor:
    """[N, 1, 8, 8]: each image moved by at most one pixel in each direction; the edge is 0."""
    padded = pad(batch, (1, 1, 1, 1))
    places = torch.randint(0, 3, (len(batch), 2)).tolist()
    return torch.stack([padded[i, :, y : y + 8, x : x + 8] for i, (y, x) in enumerate(places)])
