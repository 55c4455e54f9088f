"""Real images that come with an installed library: scikit-learn's handwritten digits."""

import functools

import numpy as np

IMAGES = {"train": 897, "judge": 400, "valid": 500}
"""How the 1,797 digits are split: inner training, the meta-objective's view of what was trained, validation."""


@functools.cache
def digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images n × 64 and labels 0–9 of each part in `IMAGES`; mean 0 and variance 1 over the training part.

    The split is fixed. Source: `sklearn.datasets.load_digits`, the test part of Alpaydin and Kaynak's optical
    recognition of handwritten digits (UCI).
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = images[order].astype(np.float32), labels[order].astype(np.int32)
    head = images[: IMAGES["train"]]
    images = (images - head.mean()) / head.std()
    cuts = np.cumsum(list(IMAGES.values()))[:-1]
    return dict(zip(IMAGES, zip(np.split(images, cuts), np.split(labels, cuts), strict=True), strict=True))
