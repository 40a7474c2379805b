"""A small U-Net (Ronneberger et al., arXiv:1505.04597) with residual blocks (arXiv:1512.03385).

32x32 ─ residual ──────────────────────────── concatenate ─ fuse ─┬─ classes [N, 11, 32, 32]
          └─ 16x16 ─ residual ──── concatenate ─ fuse ─┘ up       └─ outline [N, 1, 32, 32]
                       └─ 8x8 ─ residual, residual ─┘ up
"""

import torch
from torch import nn
from torch.nn.functional import interpolate, relu

CLASSES = 11  # ten digits and the ground
WIDTHS = (12, 24, 48)  # channels at 32x32, 16x16 and 8x8


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels)
        self.second = convolution(channels, channels)[:2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return relu(x + self.second(self.first(x)))


class Fuse(nn.Module):
    """The coarse features, scaled up, beside the fine ones of the way down."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.conv = convolution(coarse + fine, fine)

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        # XNNPACK takes the bilinear form; the nearest-neighbor one would stay behind.
        upper = interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        return self.conv(torch.cat([upper, fine], dim=1))


class UNet(nn.Module):
    """[N, 1, 32, 32], pixels in 0 to 1 -> scores of the classes, and of a digit's outline."""

    def __init__(self) -> None:
        super().__init__()
        top, middle, bottom = WIDTHS
        self.top = nn.Sequential(convolution(1, top), Residual(top))
        self.middle = nn.Sequential(convolution(top, middle, stride=2), Residual(middle))
        self.bottom = nn.Sequential(
            convolution(middle, bottom, stride=2), Residual(bottom), Residual(bottom)
        )
        self.fuse_middle = Fuse(bottom, middle)
        self.fuse_top = Fuse(middle, top)
        self.classes = nn.Conv2d(top, CLASSES, 1)
        self.outline = nn.Conv2d(top, 1, 1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        top = self.top(images)
        middle = self.middle(top)
        fused = self.fuse_top(self.fuse_middle(self.bottom(middle), middle), top)
        return self.classes(fused), self.outline(fused)


def build() -> UNet:
    return UNet()
