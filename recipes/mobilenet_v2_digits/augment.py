"""How training varies its images."""

import torch
from torch.nn.functional import pad

REACH = 4  # pixels; one of the original 8x8 image


def shifted(batch: torch.Tensor) -> torch.Tensor:
    """[N, 1, H, W]: each image moved by at most REACH pixels in each direction; the edge is 0."""
    height, width = batch.shape[2:]
    padded = pad(batch, (REACH, REACH, REACH, REACH))
    places = torch.randint(0, 2 * REACH + 1, (len(batch), 2)).tolist()
    return torch.stack(
        [padded[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(places)]
    )
