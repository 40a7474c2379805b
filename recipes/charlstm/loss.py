"""What training makes small."""

import torch
from torch.nn.functional import cross_entropy


def next_character(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Scores [N, T, classes], labels [N, T] -> mean cross-entropy in nats per character."""
    return cross_entropy(scores.flatten(0, 1), labels.flatten())
