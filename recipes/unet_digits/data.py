"""Scenes of 32x32 gray pixels: handwritten digits on photographs, and the digit of each pixel.

The digits are scikit-learn's, scaled from 8x8 to 16x16; the grounds are crops of the two
photographs that scikit-learn ships. Evaluation shares nothing with training: other digits (a fifth
of each class), and the right half of each photograph where training and calibration see the left.
Calibration takes some of the training scenes.
https://archive.ics.uci.edu/dataset/80 (E. Alpaydin, C. Kaynak, CC BY 4.0)
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
from sklearn.datasets import load_digits, load_sample_images

SIDE, DIGIT = 32, 16  # pixels
GROUND = 10  # the class of a pixel that is of no digit; the others are the digits
MOST_DIGITS = 2
EVALUATION_SHARE = 0.2
TRAINING_SCENES, EVALUATION_SCENES, CALIBRATION_SAMPLES = 4000, 256, 128
HALVES = {"training": slice(0, 320), "evaluation": slice(320, 640)}  # columns of a photograph
SEEDS = {"training": 1, "evaluation": 2}

Scene = tuple[np.ndarray, np.ndarray]


def split() -> dict[str, np.ndarray]:
    """Indices of the training and of the evaluation digits, the same on each call."""
    labels = load_digits().target
    random = np.random.RandomState(0)  # its stream is frozen, default_rng's is not
    held_out = [
        random.permutation(found)[: round(EVALUATION_SHARE * len(found))]
        for found in (np.flatnonzero(labels == digit) for digit in range(10))
    ]
    evaluation = np.sort(np.concatenate(held_out))
    return {
        "training": np.setdiff1d(np.arange(len(labels)), evaluation),
        "evaluation": evaluation,
    }


@cache
def inks() -> np.ndarray:
    """[1797, 16, 16] in 0 to 1: how much ink a pixel has; bilinear.

    Pixels are sixteenths and places are quarters: no sum is rounded, so that all machines agree.
    """
    small = load_digits().images / 16
    places = np.clip((np.arange(DIGIT) + 0.5) * small.shape[1] / DIGIT - 0.5, 0, small.shape[1] - 1)
    # Row i holds how much each pixel of a line of 8 gives to pixel i of the large line.
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(small.shape[1])))
    return weights @ small @ weights.T


@cache
def photographs() -> tuple[np.ndarray, ...]:
    """[427, 640] gray in 0 to 1, each."""
    return tuple(image.mean(axis=2) / 255 for image in load_sample_images().images)


def scenes(part: str, count: int) -> Iterator[Scene]:
    """Images [1, 1, 32, 32] float32 in 0 to 1, with the class of each pixel, [32, 32] int64."""
    random = np.random.RandomState(SEEDS[part])
    digits, classes = split()[part], load_digits().target
    for _ in range(count):
        image = ground(random, HALVES[part])
        labels = np.full((SIDE, SIDE), GROUND)
        for index in random.choice(digits, random.randint(1, MOST_DIGITS + 1)):
            y, x = random.randint(0, SIDE - DIGIT + 1, 2)
            place = slice(y, y + DIGIT), slice(x, x + DIGIT)
            ink = inks()[index]
            # Dark ink on light ground and the reverse, never quite opaque.
            shade = float(image[place].mean() < 0.5)
            cover = ink * random.uniform(0.7, 1)
            image[place] += cover * (shade - image[place])
            labels[place] = np.where(ink > 0.5, classes[index], labels[place])
        yield image[None, None].astype("float32"), labels


def ground(random: np.random.RandomState, columns: slice) -> np.ndarray:
    """[32, 32] of a photograph: each pixel, or each second or fourth, in both directions."""
    region = photographs()[random.randint(2)][:, columns]
    step = random.choice([1, 2, 4])
    top, left = (random.randint(0, size - step * SIDE + 1) for size in region.shape)
    return region[top : top + step * SIDE : step, left : left + step * SIDE : step].copy()


def training() -> Iterator[Scene]:
    yield from scenes("training", TRAINING_SCENES)


def evaluation() -> Iterator[Scene]:
    yield from scenes("evaluation", EVALUATION_SCENES)


def calibration() -> Iterator[np.ndarray]:
    for image, _ in scenes("training", CALIBRATION_SAMPLES):
        yield image
