"""Crops of the two photographs that scikit-learn ships: a palace by a lake, and a dahlia.

Calibration sees the left half of each photograph, evaluation the right half: no pixel of one is in
the other. Crops are squares of many sizes, half of them mirrored, each with an exposure of its own,
scaled to 224x224.
"""

from functools import cache

import numpy as np
from sklearn.datasets import load_sample_images

SIDE = 224
SMALLEST, LARGEST = 96, 320  # sides of a crop, in pixels of the photograph
MEAN = np.array([0.485, 0.456, 0.406])  # of ImageNet, by channel, as its models expect it
DEVIATION = np.array([0.229, 0.224, 0.225])
HALVES = {"left": slice(0, 320), "right": slice(320, 640)}


@cache
def photographs() -> tuple[np.ndarray, ...]:
    """[427, 640, 3] in 0 to 1, each."""
    return tuple(image / 255 for image in load_sample_images().images)


def crops(half: str, count: int, seed: int) -> np.ndarray:
    """[count, 3, 224, 224] float32, normalized as ImageNet's models expect it."""
    random = np.random.RandomState(seed)  # its stream is frozen, default_rng's is not
    made = []
    for k in range(count):
        region = photographs()[k % 2][:, HALVES[half]]
        side = random.randint(SMALLEST, LARGEST + 1)
        top, left = (random.randint(0, size - side + 1) for size in region.shape[:2])
        crop = scaled(region[top : top + side, left : left + side])
        crop = crop[:, ::-1] if random.rand() < 0.5 else crop
        crop = np.clip(crop * random.uniform(0.7, 1.3), 0, 1)
        made.append(((crop - MEAN) / DEVIATION).transpose(2, 0, 1))
    return np.stack(made).astype("float32")


def scaled(square: np.ndarray) -> np.ndarray:
    """A square image at 224x224, bilinear."""
    places = np.clip((np.arange(SIDE) + 0.5) * len(square) / SIDE - 0.5, 0, len(square) - 1)
    low = np.minimum(places.astype(int), len(square) - 2)
    part = (places - low)[:, None, None]
    rows = square[low] * (1 - part) + square[low + 1] * part
    part = part.reshape(1, -1, 1)
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part
