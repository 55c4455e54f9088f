"""Any cell becomes a torch optimizer that steps as the reference does."""

import pathlib
import types
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from jaxtyping import Array

from mnemo_compile.cell import AbstractCell, cell_config, MemorySlot
from mnemo_compile.exporters._package import load_package
from mnemo_compile.exporters.torch import TorchExporter
from mnemo_compile.program import compile_cell
from tests.helpers import trajectory


class Trio(AbstractCell):
    """Three averages of the gradient a coordinate, mixed by a matrix; no state of a tensor, and nothing sampled."""

    rates: Array = eqx.field(default_factory=lambda: jnp.array([0.5, 0.9, 0.99]))
    mix: Array = eqx.field(default_factory=lambda: jnp.array([[1.0, -0.5, 0.2], [0.3, 0.4, 0.1], [-0.2, 0.6, 0.5]]))
    config: Any = eqx.field(static=True, default=None)
    chunk_length: int = eqx.field(static=True, default=8)
    sample_chunks: int = eqx.field(static=True, default=2)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(static=True, default=(MemorySlot("three", (3,)),))

    def initial_state(self) -> dict[str, Array]:
        return {}

    def measure(self, grad: Any) -> dict[str, Any]:
        return {"largest": jnp.max(jnp.abs(grad), axis=1)}

    def encode(self, param: Any, grad: Any, memory: Any, valid: Any, moments: Any, facts: Any, state: Any) -> Any:
        return {}

    def recall(self, summary: Any, moments: Any, facts: Any, clock: Any, state: Any) -> Any:
        return {"size": 1 / (1 + moments["largest"])}, {}

    def decode(self, param: Any, grad: Any, memory: Mapping[str, Any], context: Any) -> Any:
        three = memory["three"] * self.rates + (1 - self.rates) * grad[..., None]
        mixed = jnp.tanh(jnp.einsum("rck,kj->rcj", three, self.mix))
        sign = jnp.where((param > 0) & jnp.logical_not(grad == 0), jnp.sign(param), -jnp.floor(grad))
        return jnp.max(mixed, axis=2) + 0.01 * sign, {"three": three}

    def scale(self, context: Any, spread: Any) -> Any:
        return 0.1 * context["size"]


class Bare(AbstractCell):
    """Neither memory nor state: what a step needs least."""

    config: Any = eqx.field(static=True, default=None)
    chunk_length: int = eqx.field(static=True, default=8)
    sample_chunks: int = eqx.field(static=True, default=2)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(static=True, default=())

    def initial_state(self) -> dict[str, Array]:
        return {}

    def measure(self, grad: Any) -> dict[str, Any]:
        return {"sum": jnp.sum(grad, axis=1)}

    def encode(self, param: Any, grad: Any, memory: Any, valid: Any, moments: Any, facts: Any, state: Any) -> Any:
        return {}

    def recall(self, summary: Any, moments: Any, facts: Any, clock: Any, state: Any) -> Any:
        return {}, {}

    def decode(self, param: Any, grad: Any, memory: Any, context: Any) -> Any:
        return jnp.log1p(jnp.abs(grad)) * jnp.sign(grad), {}

    def scale(self, context: Any, spread: Any) -> Any:
        return 0.01 * jnp.ones_like(spread["count"])


CELLS: dict[str, AbstractCell] = {
    "trio": Trio(),
    "bare": Bare(),
    "adam": cell_config({"kind": "adam"}).build(),
    "lstm": cell_config({"kind": "lstm"}).build(),
}


@pytest.fixture(scope="module")
def optimizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The class of each cell."""
    classes = {}
    for name, cell in CELLS.items():
        folder = tmp_path_factory.mktemp(name)
        frozen: Any = types.SimpleNamespace(name=name, version="1.0.0", digest=name * 8)
        TorchExporter().emit(frozen, compile_cell(cell), pathlib.Path(folder))
        classes[name] = load_package(folder / name).Mnemosyne
    return classes


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from(sorted(CELLS)),
    shapes=st.lists(st.sampled_from([(), (5,), (8,), (3, 9), (70,), (11, 13)]), min_size=1, max_size=3),
    block_size=st.sampled_from([8, 32, 4096]),
    seed=st.integers(0, 99),
)
def test_a_cell_of_any_kind_steps_as_the_reference(
    optimizers: dict[str, Any], name: str, shapes: list[tuple[int, ...]], block_size: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    params = [np.asarray(random.normal(size=shape), np.float32) for shape in shapes]
    history = [[np.asarray(random.normal(size=shape), np.float32) for shape in shapes] for _ in range(3)]
    history.insert(1, [np.full(shape, np.nan, np.float32) for shape in shapes])
    arrays = [list(map(jnp.asarray, grads)) for grads in history]
    options = {"lr": 0.7, "weight_decay": 0.01}
    expected, _ = trajectory(CELLS[name], shapes, list(map(jnp.asarray, params)), arrays, **options)
    tensors = [torch.nn.Parameter(torch.tensor(param)) for param in params]
    optimizer = optimizers[name](tensors, block_size=block_size, **options)
    for grads in history:
        for tensor, grad in zip(tensors, grads, strict=True):
            tensor.grad = torch.tensor(grad)
        optimizer.step()
    for tensor, value in zip(tensors, expected, strict=True):
        np.testing.assert_allclose(tensor.detach().numpy(), np.asarray(value), rtol=2e-5, atol=1e-6)
    assert optimizer.skipped_steps == 1


def test_memory_has_the_shape_of_its_slot_for_each_coordinate(optimizers: dict[str, Any]) -> None:
    param = torch.nn.Parameter(torch.ones(4, 5))
    param.grad = torch.ones(4, 5)
    optimizer = optimizers["trio"]([param])
    optimizer.step()
    assert {name: tuple(value.shape) for name, value in optimizer.state[param].items()} == {"three": (4, 5, 3)}
    bare = optimizers["bare"]([param])
    bare.step()
    assert bare.state[param] == {}
    optimizer.load_state_dict(optimizer.state_dict())
    bare.load_state_dict(bare.state_dict())
