"""What training lessens."""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, max_pool2d

OUTLINE_SHARE = 0.3  # of the outline's loss beside that of the classes


def loss(outputs: tuple[torch.Tensor, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Mean over all pixels. labels: classes [N, 32, 32] int64."""
    classes, outline = outputs
    return cross_entropy(classes, labels) + OUTLINE_SHARE * binary_cross_entropy_with_logits(
        outline, outlines(labels)
    )


def outlines(labels: torch.Tensor) -> torch.Tensor:
    """[N, 1, 32, 32] float32: 1 where a pixel among the eight around it is of another class."""
    values = labels[:, None].float()
    highest = max_pool2d(values, 3, stride=1, padding=1)
    lowest = -max_pool2d(-values, 3, stride=1, padding=1)
    return (highest > lowest).float()
