"""Adam and the LSTM optimizer are what their papers say."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from mnemo_compile.cell import AbstractCell, AbstractCellConfig, AdamConfig, LSTMConfig
from tests.helpers import trajectory

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


@pytest.mark.parametrize("config", [AdamConfig(), LSTMConfig()], ids=lambda config: config.kind)
def test_meta_gradients_are_finite_where_coordinates_have_no_gradient(config: AbstractCellConfig) -> None:
    @eqx.filter_grad
    def meta_gradient(arguments: tuple[AbstractCell, list[list[jax.Array]]]) -> jax.Array:
        cell, grads = arguments
        params, _ = trajectory(cell, SHAPES, grads[0], grads)
        return sum((jnp.sum(jnp.square(param)) for param in params), jnp.zeros(()))

    grads = [[grad.at[..., :3].set(0) if grad.size > 3 else grad for grad in step] for step in history(3)]
    of_cell, of_grads = meta_gradient((config.build(), grads))
    weights = jax.tree.leaves((of_cell, of_grads))
    assert all(jnp.isfinite(weight).all() for weight in weights)
    assert any(jnp.any(weight != 0) for weight in jax.tree.leaves(of_cell))
