"""MobileNetV2 (Sandler et al., arXiv:1801.04381), narrow, for small gray images and ten classes.

All 52 convolutions and the linear layer of the paper's table 2. Two things differ: the width, and
the stride of the second stage, which is 1, so that an image of 32x32 is 2x2 at the end and not 1x1.
"""

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

WIDTH = 0.35
STEM, LAST, CLASSES = 32, 1280, 10
EPSILON = 1e-3  # of the batch-norms, as in the code of the authors
# expansion, output channels, blocks, stride of the first block
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def narrowed(channels: int) -> int:
    """The nearest multiple of 8 to the width's share, unless that is more than a tenth below it."""
    wanted = channels * WIDTH
    nearest = max(8, int(wanted + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * wanted else nearest + 8


def convolution(
    inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, (size - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=EPSILON),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [convolution(inputs, hidden, 1)] if expansion > 1 else []
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *expand,
            convolution(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs, eps=EPSILON),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """[N, 1, 32, 32] float32, pixels in 0 to 1 -> scores [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        channels = narrowed(STEM)
        features: list[nn.Module] = [convolution(1, channels, 3, stride=2)]
        for expansion, outputs, blocks, stride in STAGES:
            for k in range(blocks):
                block = InvertedResidual(
                    channels, narrowed(outputs), stride if k == 0 else 1, expansion
                )
                features.append(block)
                channels = narrowed(outputs)
        # As in the paper, a width below 1 leaves the last convolution as wide as it is.
        features.append(convolution(channels, LAST, 1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(LAST, CLASSES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # XNNPACK takes this form of the mean over the image; x.mean([2, 3]) would stay behind.
        return self.classifier(adaptive_avg_pool2d(self.features(images), 1).flatten(1))


def build() -> MobileNetV2:
    return MobileNetV2()
