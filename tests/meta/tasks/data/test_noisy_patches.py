"""Noisy patches, whose noise is predicted."""

import jax
import numpy as np

from tests.meta.tasks.families import supervised


def test_without_the_target_a_patch_is_clean() -> None:
    family = supervised({"kind": "noisy-patches", "noise": 0.5}, {"kind": "denoiser", "width": 4}, batch=64)
    batch = family.batch(family.draw(jax.random.key(0)), jax.random.key(1), "train")
    noise = np.asarray(batch.targets).reshape(batch.inputs.shape)
    assert abs(noise.std() - 1) < 0.05

    def roughness(images: np.ndarray) -> float:
        return float(np.mean(np.square(np.diff(images, axis=2))))

    assert roughness(np.asarray(batch.inputs) - 0.5 * noise) < 0.5 * roughness(np.asarray(batch.inputs))
