"""MobileNetV2 at width 1.0 (Sandler et al., arXiv:1801.04381), 1000 classes.

Names of the state dict are torchvision's: a checkpoint of torchvision.models.mobilenet_v2 loads as
`weights` of the recipe. Without one, weights are drawn from a fixed seed, and are made to behave:
batch-norms get the exact statistics of a batch of real images, for a network with others than its
own soon answers the same to everything.
"""

import torch
from photographs import crops
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

STEM, LAST, CLASSES = 32, 1280, 1000
# expansion, output channels, blocks, stride of the first block: table 2 of the paper
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STATISTICS_IMAGES = 8
BRANCH_SCALE = 0.3


def convolution(
    inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, (size - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
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
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """[N, 3, 224, 224], normalized as for ImageNet -> scores [N, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        features: list[nn.Module] = [convolution(3, STEM, 3, stride=2)]
        channels = STEM
        for expansion, outputs, blocks, stride in STAGES:
            for k in range(blocks):
                features.append(
                    InvertedResidual(channels, outputs, stride if k == 0 else 1, expansion)
                )
                channels = outputs
        features.append(convolution(channels, LAST, 1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(LAST, CLASSES))

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        # XNNPACK takes this form of the mean over the image; x.mean([2, 3]) would stay behind.
        return adaptive_avg_pool2d(self.features(images), 1).flatten(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.pooled(images))


def mobilenet_v2() -> MobileNetV2:
    model = MobileNetV2()
    seed(model)
    fit_statistics(model, torch.from_numpy(crops("left", STATISTICS_IMAGES, seed=0)))
    return model.eval()


@torch.no_grad()
def seed(model: MobileNetV2) -> None:
    """Draw all weights from a generator of their own.

    Depthwise filters are positive, so that they smooth, as much of a trained network does. With
    signs at random each layer amplifies noise: 64 dB of signal to noise in the image became 20 dB
    in the scores, and 58 dB this way. Residual branches start small for the same reason (Goyal et
    al., arXiv:1706.02677, start them at zero): int8 then keeps 12 dB rather than 10.
    """
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.groups > 1:
                module.weight.abs_()
        elif isinstance(module, InvertedResidual) and module.residual:
            module.conv[-1].weight.fill_(BRANCH_SCALE)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.05, generator=generator)


@torch.no_grad()
def fit_statistics(model: MobileNetV2, images: torch.Tensor) -> None:
    """Give each batch-norm the mean and variance of what reaches it, and center the scores.

    One pass is exact: in training a batch-norm normalizes by the batch that it sees, so that the
    next one already sees what it will see in use; momentum 1 keeps just this batch.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    features = model.train().pooled(images)
    for norm in norms:
        norm.momentum = 0.1
    linear = model.classifier[1]
    # Features are means of ReLU6, all positive: without this, one class would win for every image.
    linear.bias.copy_(-linear.weight @ features.mean(0))
