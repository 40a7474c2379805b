"""Docstrings of Python's standard library as windows of characters, each with what comes next.

Training and calibration windows are from other modules than evaluation windows: see collect.py. The
text is Python's (corpus/LICENSE.txt).
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

CORPUS = Path(__file__).with_name("corpus")
VOCABULARY = "\n" + "".join(map(chr, range(ord(" "), ord("~") + 1)))
WINDOW = 32  # characters that the model sees
CALIBRATION_SAMPLES, EVALUATION_SAMPLES = 128, 512


@cache
def text(name: str) -> np.ndarray:
    """A file of the corpus as places in the vocabulary: int64 [characters]."""
    places = {character: place for place, character in enumerate(VOCABULARY)}
    written = (CORPUS / f"{name}.txt").read_text("ascii")
    return np.array([places[character] for character in written], np.int64)


def windows(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The text cut up: characters, int64 [windows, WINDOW], and what follows each, likewise."""
    characters = text(name)
    count = (len(characters) - 1) // WINDOW
    inputs, labels = (characters[k:][: count * WINDOW].reshape(count, WINDOW) for k in (0, 1))
    return inputs, labels


def calibration() -> Iterator[np.ndarray]:
    inputs, _ = windows("training")
    yield from inputs[_chosen(len(inputs), CALIBRATION_SAMPLES, seed=1), None]


def evaluation() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Windows from all of the text, mixed: the first few of them stand for all."""
    inputs, labels = windows("evaluation")
    chosen = _chosen(len(inputs), EVALUATION_SAMPLES, seed=2)
    yield from zip(inputs[chosen, None], labels[chosen], strict=True)


def training() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    inputs, labels = windows("training")
    yield from zip(inputs[:, None], labels, strict=True)


def _chosen(count: int, samples: int, seed: int) -> np.ndarray:
    # RandomState's stream is frozen, default_rng's is not.
    return np.random.RandomState(seed).permutation(count)[:samples]
