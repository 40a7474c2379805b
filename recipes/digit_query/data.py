"""Pairs of a handwritten digit and a query: is it an image of that digit?

The images are scikit-learn's, 1,797 of 8x8 pixels. A fifth of each class is for evaluation and is
seen neither in training nor in calibration; calibration takes some of the training pairs. Each
image comes once with its own digit and once with another.
https://archive.ics.uci.edu/dataset/80 (E. Alpaydin, C. Kaynak, CC BY 4.0)
"""

from collections.abc import Iterator

import numpy as np
from sklearn.datasets import load_digits

EVALUATION_SHARE = 0.2
CALIBRATION_SAMPLES = 128
DIGITS = 10

Inputs = tuple[np.ndarray, np.ndarray]


def split() -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and of the evaluation images, the same on each call."""
    labels = load_digits().target
    random = np.random.RandomState(0)  # its stream is frozen, default_rng's is not
    held_out = [
        random.permutation(found)[: round(EVALUATION_SHARE * len(found))]
        for found in (np.flatnonzero(labels == digit) for digit in range(DIGITS))
    ]
    evaluation = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), evaluation), evaluation


def pairs(indices: np.ndarray, seed: int) -> Iterator[tuple[Inputs, int]]:
    """(image [1, 1, 8, 8] float32 in 0 to 1, query [1] int64), with 1 where they agree, else 0."""
    digits = load_digits()
    steps = np.random.RandomState(seed).randint(1, DIGITS, len(indices))
    for index, step in zip(indices, steps, strict=True):
        image = (digits.images[None, None, index] / 16).astype("float32")
        own = digits.target[index]
        yield (image, np.array([own])), 1
        yield (image, np.array([(own + step) % DIGITS])), 0


def training() -> Iterator[tuple[Inputs, int]]:
    yield from pairs(split()[0], seed=1)


def evaluation() -> Iterator[tuple[Inputs, int]]:
    yield from pairs(split()[1], seed=2)


def calibration() -> Iterator[Inputs]:
    known = list(training())
    for k in np.random.RandomState(3).permutation(len(known))[:CALIBRATION_SAMPLES]:
        yield known[k][0]
