"""Muon as its authors use it."""

from typing import Any

import jax
import numpy as np
import optax

from mnemo_compile.meta.evaluation._baselines import BASELINES, MUON_ADAMW, Setting
from mnemo_compile.meta.tasks import Tensor

TENSORS = (
    Tensor((12, 8), name="token_embedding.weight"),
    Tensor((8, 8), name="blocks.0.mlp.up.weight"),
    Tensor((8,), name="blocks.0.mlp.up.bias"),
    Tensor((3, 3, 2, 4), name="conv.kernel"),
    Tensor((8, 12), name="head.weight"),
)


def test_embeddings_heads_and_vectors_are_for_adamw_and_kernels_are_matrices() -> None:
    keys = jax.random.split(jax.random.key(0), len(TENSORS))
    params = [jax.random.normal(key, tensor.shape) for key, tensor in zip(keys, TENSORS, strict=True)]
    grads = [param[::-1] for param in params]

    def updates_of(optimizer: optax.GradientTransformation) -> list[np.ndarray]:
        updates: Any = optimizer.update(grads, optimizer.init(params), params)[0]
        return [np.asarray(update) for update in updates]

    muon = BASELINES["muon-hidden"].of(TENSORS)(Setting(0.01, 0.0), 100)
    updates = updates_of(muon)
    elementwise = updates_of(optax.adamw(MUON_ADAMW * 0.01, weight_decay=0, nesterov=True))
    for place in (0, 2, 4):
        np.testing.assert_allclose(updates[place], elementwise[place], rtol=1e-4)
    # The others have singular values near one size. A kernel has its 18 inputs and its 4 outputs as axes.
    for place, shape in ((1, (8, 8)), (3, (18, 4))):
        sizes = np.linalg.svd(updates[place].reshape(shape), compute_uv=False)
        assert sizes.max() < 2 * np.median(sizes) and 0.005 < np.median(sizes) < 0.02
