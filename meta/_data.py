"""Real images that come with an installed library: scikit-learn's handwritten digits."""

import functools

import numpy as np

TRAIN_IMAGES = 1297
"""Of the 1,797 digits; the other 500 are for validation and never trained on."""


@functools.cache
def digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """`train` and `valid`: images n × 64 with mean 0 and variance 1 over the training set, and labels 0–9.

    The split is fixed. Source: `sklearn.datasets.load_digits`, the test part of Alpaydin and Kaynak's optical
    recognition of handwritten digits (UCI).
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = images[order].astype(np.float32), labels[order].astype(np.int32)
    head = images[:TRAIN_IMAGES]
    images = (images - head.mean()) / head.std()
    return {
        "train": (images[:TRAIN_IMAGES], labels[:TRAIN_IMAGES]),
        "valid": (images[TRAIN_IMAGES:], labels[TRAIN_IMAGES:]),
    }
