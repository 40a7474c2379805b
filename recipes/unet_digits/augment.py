"""How training varies its images: light only, for the labels tell of each pixel where it is."""

import torch


def exposed(images: torch.Tensor) -> torch.Tensor:
    """[N, 1, H, W] in 0 to 1: each with a contrast and a brightness of its own, and noise; half of
    them as negatives."""
    size = (len(images), 1, 1, 1)
    contrast = 0.7 + 0.6 * torch.rand(size)
    brightness = 0.2 * torch.rand(size) - 0.1
    varied = (images - 0.5) * contrast + 0.5 + brightness + 0.02 * torch.randn(images.shape)
    varied = torch.where(torch.rand(size) < 0.5, 1 - varied, varied)
    return varied.clamp(0, 1)
