"""Real images without a download: see photographs.py."""

from collections.abc import Iterator

import numpy as np
from photographs import crops

CALIBRATION_SAMPLES, EVALUATION_SAMPLES = 32, 32


def calibration() -> Iterator[np.ndarray]:
    yield from crops("left", CALIBRATION_SAMPLES, seed=1)[:, None]


def evaluation() -> Iterator[tuple[np.ndarray, None]]:
    """Without labels: seeded weights know no classes. They are judged by the float model."""
    for image in crops("right", EVALUATION_SAMPLES, seed=2)[:, None]:
        yield image, None
