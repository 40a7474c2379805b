"""scikit-learn's handwritten digits, 1,797 images of 8x8 pixels, scaled up to 32x32.

A fifth of each class is for evaluation and is seen neither in training nor in calibration;
calibration takes some of the training images.
https://archive.ics.uci.edu/dataset/80 (E. Alpaydin, C. Kaynak, CC BY 4.0)
"""

from collections.abc import Iterator

import numpy as np
from sklearn.datasets import load_digits

SIDE = 32
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


def images() -> np.ndarray:
    """[1797, 1, 32, 32] float32 in 0 to 1, bilinear.

    Pixels are sixteenths and places are eighths: no sum is rounded, so that all machines agree.
    """
    small = load_digits().images / 16
    places = np.clip((np.arange(SIDE) + 0.5) * small.shape[1] / SIDE - 0.5, 0, small.shape[1] - 1)
    # Row i holds how much each pixel of a line of eight gives to pixel i of the large line.
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(small.shape[1])))
    return (weights @ small @ weights.T)[:, None].astype("float32")


def calibration() -> Iterator[np.ndarray]:
    chosen = np.random.RandomState(1).permutation(split()[0])[:CALIBRATION_SAMPLES]
    yield from images()[chosen, None]


def evaluation() -> Iterator[tuple[np.ndarray, int]]:
    yield from _labeled(split()[1])


def training() -> Iterator[tuple[np.ndarray, int]]:
    yield from _labeled(split()[0])


def _labeled(indices: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    yield from zip(images()[indices, None], load_digits().target[indices], strict=True)
