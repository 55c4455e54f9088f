"""Adam and the LSTM optimizer are what their papers say, and meta-gradients of all cells are finite."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from mnemo_compile.cell import AbstractCell, AdamConfig, cell_config, LSTMConfig
from mnemo_compile.meta import load_config, presets
from tests.helpers import learned, normal, trajectory

SHAPES = [(), (7,), (33, 5), (1200,)]


def history(steps: int, seed: int = 0) -> list[list[jax.Array]]:
    random = np.random.default_rng(seed)
    return [
        [jnp.asarray(random.normal(size=shape) * 10 ** random.uniform(-3, 1), jnp.float32) for shape in SHAPES]
        for _ in range(steps)
    ]


def test_adam_is_adamw() -> None:
    grads = history(100)
    start = [grad + 1 for grad in history(1, seed=1)[0]]
    # The product is a power of two, so that torch's factor 1 − rate · decay is exact in float32.
    rate, decay = 2**-6, 2**-4
    config = AdamConfig(learning_rate=rate, beta1=0.8, beta2=0.99, epsilon=1e-6)
    params_after, _ = trajectory(config.build(), SHAPES, start, grads, weight_decay=decay)
    params = [torch.nn.Parameter(torch.tensor(np.asarray(value))) for value in start]
    adamw = torch.optim.AdamW(params, lr=rate, betas=(0.8, 0.99), eps=1e-6, weight_decay=decay)
    for step in grads:
        for param, grad in zip(params, step, strict=True):
            param.grad = torch.tensor(np.asarray(grad))
        adamw.step()
    for x, param in zip(params_after, params, strict=True):
        np.testing.assert_allclose(np.asarray(x), param.detach().numpy(), rtol=2e-6, atol=2e-6)


def test_the_lstm_is_two_layers_of_torchs_lstm_on_the_papers_features() -> None:
    cell = LSTMConfig(seed=3).build()
    random = np.random.default_rng(0)
    grads = [np.asarray(random.normal(size=9) * 10.0 ** random.integers(-8, 3, 9), np.float32) for _ in range(6)]
    grads[2][:] = 0

    layers = []
    for layer in (cell.first, cell.second):
        torch_layer = torch.nn.LSTMCell(layer.input.shape[1], cell.config.hidden)
        with torch.no_grad():
            torch_layer.weight_ih.copy_(torch.tensor(np.asarray(layer.input)))
            torch_layer.weight_hh.copy_(torch.tensor(np.asarray(layer.recurrent)))
            torch_layer.bias_ih.copy_(torch.tensor(np.asarray(layer.bias)))
            torch_layer.bias_hh.zero_()
        layers.append(torch_layer)
    states = [(torch.zeros(9, 20), torch.zeros(9, 20)) for _ in layers]
    param = np.zeros(9)
    for grad in grads:
        g = torch.tensor(grad)
        p = 10.0
        large = g.abs() >= np.exp(-p)
        features = torch.stack(
            [
                torch.where(large, torch.log(g.abs().clamp(min=1e-30)) / p, -torch.ones(9)),
                torch.where(large, torch.sign(g), np.exp(p) * g),
            ],
            dim=1,
        )
        for place, layer in enumerate(layers):
            states[place] = layer(features, states[place])
            features = states[place][0]
        param = param + 0.1 * (features @ torch.tensor(np.asarray(cell.output))).detach().numpy()

    params_after, _ = trajectory(cell, [(9,)], [jnp.zeros(9)], [[jnp.asarray(grad)] for grad in grads])
    np.testing.assert_allclose(np.asarray(params_after[0]), param, rtol=1e-5, atol=1e-6)


HARD: dict[str, Callable[[jax.Array], jax.Array]] = {
    "zero": jnp.zeros_like,
    "zero in part": lambda grad: grad.at[..., :3].set(0) if grad.size > 3 else grad,
    "tiny": lambda grad: 1e-13 * grad,
    "subnormal": lambda grad: 1e-38 * grad,
    "huge": lambda grad: 1e20 * grad,
    "not a number": lambda grad: grad.at[..., 0].set(jnp.nan) if grad.size > 1 else grad,
    "infinite": lambda grad: grad.at[..., 0].set(-jnp.inf) if grad.size > 1 else grad,
}
"""What makes derivatives of roots, quotients and logarithms overflow, or refuses the step."""
FEW = [(), (7,), (9, 5)]
SIZES = {"chunk_length": 16, "token": 3, "random_features": 2, "context": 3, "hidden": 2}


@eqx.filter_value_and_grad
def objective(arguments: tuple[AbstractCell, list[list[jax.Array]]]) -> jax.Array:
    cell, grads = arguments
    params, _ = trajectory(cell, FEW, [0 * tensor for tensor in normal(1, FEW)], grads)
    return sum((jnp.sum(jnp.square(param)) for param in params), jnp.zeros(()))


def check_meta_gradients(cell: AbstractCell) -> None:
    """Hard gradients in the first step and in the last one, of all tensors and of the matrix alone."""
    for name, hard in HARD.items():
        for places in (range(len(FEW)), (2,)):
            steps = [normal(seed, FEW) for seed in range(3)]
            for step in (steps[0], steps[2]):
                step[:] = [hard(grad) if place in places else grad for place, grad in enumerate(step)]
            value, gradients = objective((cell, steps))
            leaves = jax.tree.leaves((value, gradients))
            assert all(jnp.isfinite(leaf).all() for leaf in leaves), (name, places)
            assert any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradients[0])), (name, places)


ALL_PARTS = {
    "second_moments": "factored",
    "state_dtype": "bfloat16",
    "coordinate_wise": ("vector",),
    "chunk_memory": 2,
    "network_attention": True,
    "agreement": True,
    "role_aware": True,
    "adaptation": 0.5,
}


@pytest.mark.parametrize(
    "settings",
    [{"kind": "adam"}, {"kind": "lstm"}, {"kind": "mnemosyne", "network": False}],
    ids=["adam", "lstm", "prior"],
)
def test_meta_gradients_are_finite(settings: dict[str, Any]) -> None:
    check_meta_gradients(learned(cell_config(settings).build()))


@pytest.mark.slow
@pytest.mark.parametrize("preset", [name for name in presets() if name != "lstm"])
def test_meta_gradients_of_presets_are_finite(preset: str) -> None:
    settings = load_config(preset).cell.model_dump()
    check_meta_gradients(learned(cell_config({**settings, **SIZES}).build()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ALL_PARTS,
        {"second_moments": "none", "kernel": "relu"},
        {"momentum": (), "kernel": "hyperbolic"},
        {"second_moments": "none", "network": False, "prior": {"tile": 0}},
    ],
    ids=["all parts", "momentum", "memoryless", "momentum without tiles"],
)
def test_meta_gradients_of_other_variants_are_finite(settings: dict[str, Any]) -> None:
    check_meta_gradients(learned(cell_config({"kind": "mnemosyne", **SIZES, **settings}).build()))
