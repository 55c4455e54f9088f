"""Any cell becomes a torch optimizer that steps as the reference does."""

import pathlib
import types
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from mnemo_compile.exporters.python import load_package
from mnemo_compile.exporters.torch import TorchExporter
from mnemo_compile.program import compile_cell
from tests.cells import cell_of
from tests.helpers import trajectory

CELLS = {kind: cell_of(kind) for kind in ("trio", "bare", "tracks", "levels", "adam", "lstm")}


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
    options: Any = {"lr": 0.7, "weight_decay": 0.01}
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


def test_a_slot_is_stored_for_the_roles_and_in_the_dtype_that_the_cell_says(optimizers: dict[str, Any]) -> None:
    shapes = [(9,), (6, 5), (40, 2), (3, 3, 4)]
    params = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    optimizer = optimizers["levels"]([{"params": params[:3]}, {"params": params[3:], "role": "embedding"}])
    for param in params:
        param.grad = torch.randn_like(param)
    optimizer.step()
    for param, chunks, is_own in zip(params, (2, 4, 10, 6), (True, False, True, True), strict=True):
        state = optimizer.state[param]
        assert ("own" in state) == is_own
        assert {name: (tuple(state[name].shape), state[name].dtype) for name in state if name != "own"} == {
            "narrow": (tuple(param.shape), torch.bfloat16),
            "pair": ((*param.shape, 2), torch.bfloat16),
            "energy": ((chunks,), torch.float32),
            "tokens": ((chunks, 2, 3), torch.float32),
            "recall": ((2,), torch.float32),
        }
    # A parameter that is told to be an embedding is stepped as one.
    others = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    plain = optimizers["levels"](others)
    for param, other in zip(params, others, strict=True):
        other.grad = param.grad
    plain.step()
    # Packs of other tensors add in another order.
    torch.testing.assert_close(params[1], others[1], rtol=1e-6, atol=0)
    assert not torch.allclose(params[3], others[3], rtol=1e-5, atol=0)

    saved = optimizer.state_dict()
    restored = optimizers["levels"]([{"params": params[:3]}, {"params": params[3:], "role": "embedding"}])
    restored.load_state_dict(saved)
    for param in params:
        for name, value in optimizer.state[param].items():
            assert torch.equal(restored.state[param][name], value) and restored.state[param][name].dtype == value.dtype
    with pytest.raises(ValueError, match="role of group 1 must be one of vector, matrix.* not 'tail'"):
        optimizers["levels"]([{"params": params[:3]}, {"params": params[3:], "role": "tail"}])
    del saved["state"][0]["own"]
    with pytest.raises(ValueError, match="the state of parameter 0 of group 0 holds .* where .*own.* belong"):
        restored.load_state_dict(saved)


@pytest.mark.parametrize("name", ["levels", "tracks"])
def test_groups_and_dtypes_share_the_sums_of_the_network(optimizers: dict[str, Any], name: str) -> None:
    """Parameters in float64 step beside others as they would in float32."""
    shapes = [(9,), (6, 5), (40, 2)]
    grads = [[torch.randn(shape) for shape in shapes] for _ in range(3)]
    results = []
    for dtypes in ([torch.float32] * 3, [torch.float32, torch.float64, torch.float32]):
        params = [torch.nn.Parameter(torch.ones(shape, dtype=t)) for shape, t in zip(shapes, dtypes, strict=True)]
        optimizer = optimizers[name](params)
        for step in grads:
            for param, grad in zip(params, step, strict=True):
                param.grad = grad.to(param.dtype)
            optimizer.step()
        results.append([param.detach().float() for param in params])
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["levels", "trio"])
def test_phases_that_are_no_single_loops_are_not_compiled(optimizers: dict[str, Any], name: str) -> None:
    params = [torch.nn.Parameter(torch.ones(64, 70))]
    with pytest.raises(ValueError, match="'compiled' is not available here, because the phases of this cell are no"):
        optimizers[name](params, backend="compiled")
