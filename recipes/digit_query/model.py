"""Two inputs, one answer: does the image show the digit that is asked for?

A small CNN makes features of the image, an embedding makes as many of the query; their product, as
in factorized visual question answering (Kim et al., arXiv:1610.04325), is judged by a linear layer.
"""

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

FEATURES = 64
DIGITS = 10


def convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class DigitQuery(nn.Module):
    """image [N, 1, 8, 8] float32, pixels in 0 to 1; query [N] int64, 0 to 9 -> scores [N, 2] of
    no and yes."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(
            convolution(1, 16, 1), convolution(16, 32, 2), convolution(32, FEATURES, 1)
        )
        self.query = nn.Embedding(DIGITS, FEATURES)
        self.answer = nn.Linear(FEATURES, 2)

    def forward(self, image: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        # XNNPACK takes this form of the mean over the image; x.mean([2, 3]) would stay behind.
        seen = adaptive_avg_pool2d(self.image(image), 1).flatten(1)
        return self.answer(seen * self.query(query))


def build() -> DigitQuery:
    return DigitQuery()
