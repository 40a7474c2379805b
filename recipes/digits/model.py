"""A CNN for 8x8 digits: three convolutions, each with batch-norm and ReLU, and a linear layer."""

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d


def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Digits(nn.Module):
    """[N, 1, 8, 8], pixels in 0 to 1 -> scores [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(block(1, 16, 1), block(16, 32, 2), block(32, 64, 1))
        self.classifier = nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # XNNPACK takes this form of the mean over the image; x.mean([2, 3]) would stay behind.
        pooled = adaptive_avg_pool2d(self.features(images), 1).flatten(1)
        return self.classifier(pooled)


def build() -> Digits:
    return Digits()
