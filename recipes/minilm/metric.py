"""How much of a sentence's neighborhood quantization keeps."""

import numpy as np

NEIGHBORS = 10


def neighbors(
    outputs: list[np.ndarray], _labels: np.ndarray | None, reference: list[np.ndarray]
) -> float:
    """Recall of the float model's 10 nearest neighbors, by cosine; 1 for the float model itself.

    The share of them that are among the 10 nearest under `outputs` too, in the mean over all
    sentences: the measure of ANN-Benchmarks (Aumüller, Bernhardsson and Faithfull,
    arXiv:1807.05614). Of fewer than 40 sentences a quarter are neighbors: any model keeps them all.
    outputs[0], reference[0]: embeddings [N, 1, size] of the same N sentences, N at least 3.
    """
    ours, theirs = nearest(outputs[0]), nearest(reference[0])
    kept = [len(set(a) & set(b)) for a, b in zip(ours, theirs, strict=True)]
    return float(np.mean(kept) / ours.shape[1])


def nearest(embeddings: np.ndarray) -> np.ndarray:
    """[N, neighbors]: the numbers of the nearest other sentences of each sentence."""
    count = len(embeddings)
    if count < 3:
        raise ValueError(f"neighbors need at least 3 sentences, and there are {count}")
    vectors = embeddings.reshape(count, -1).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1, kind="stable")[:, : max(1, min(NEIGHBORS, count // 4))]
