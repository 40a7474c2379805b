"""scikit-learn's handwritten digits: 1,797 images of 8x8 pixels, split once and for all.

A fifth of each class is for evaluation and is seen neither in training nor in calibration;
calibration takes some of the training images.
https://archive.ics.uci.edu/dataset/80 (E. Alpaydin, C. Kaynak, CC BY 4.0)
"""

from collections.abc import Iterator

import numpy as np
from sklearn.datasets import load_digits

EVALUATION_SHARE = 0.2
CALIBRATION_SAMPLES = 128


def split() -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and of the evaluation images, the same on each call."""
    labels = load_digits().target
    random = np.random.RandomState(0)  # its stream is frozen, default_rng's is not
    held_out = [
        random.permutation(found)[: round(EVALUATION_SHARE * len(found))]
        for found in (np.flatnonzero(labels == digit) for digit in range(10))
    ]
    evaluation = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), evaluation), evaluation


def calibration_indices() -> np.ndarray:
    return np.random.RandomState(1).permutation(split()[0])[:CALIBRATION_SAMPLES]


def images() -> np.ndarray:
    """[1797, 1, 8, 8] float32 in 0 to 1."""
    return (load_digits().images[:, None] / 16).astype("float32")


def calibration() -> Iterator[np.ndarray]:
    yield from images()[calibration_indices(), None]


def evaluation() -> Iterator[tuple[np.ndarray, int]]:
    yield from _labeled(split()[1])


def training() -> Iterator[tuple[np.ndarray, int]]:
    yield from _labeled(split()[0])


def _labeled(indices: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    yield from zip(images()[indices, None], load_digits().target[indices], strict=True)
