"""How well the classes of pixels are found."""

import numpy as np


def mean_iou(outputs: list[np.ndarray], labels: np.ndarray) -> float:
    """Mean intersection over union (Jaccard index) of the classes, over all pixels of all scenes.

    As in PASCAL VOC's segmentation task (Everingham et al., doi:10.1007/s11263-014-0733-5): for
    each class the pixels that are rightly given to it, by those that are given to it or are of it.
    Classes that are neither given nor there, as may be in few scenes, do not count.
    outputs[0]: scores [N, 1, 11, 32, 32]; labels: [N, 32, 32].
    """
    scores = outputs[0]
    classes = scores.shape[-3]
    answers = scores.argmax(axis=-3).ravel()
    pairs = np.bincount(labels.ravel() * classes + answers, minlength=classes**2)
    confusion = pairs.reshape(classes, classes)
    right = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - right
    seen = union > 0
    return float((right[seen] / union[seen]).mean())
