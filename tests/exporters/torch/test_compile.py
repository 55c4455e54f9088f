"""The torch export under `torch.compile`, by the user and by itself."""

import copy
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
import torch._dynamo
from torch._dynamo.utils import counters

pytestmark = [
    # Importing torch's own compiler warns.
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.*treespec.*:FutureWarning"),
]


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def _assert_same_steps(step: Any, params: list[Any], plain: Any, expected: list[Any], steps: int) -> None:
    """Gradients that are not finite in the second step; the rate falls."""
    generator = torch.Generator().manual_seed(0)
    for count in range(steps):
        for left, right in zip(params, expected, strict=True):
            grad = torch.randn(left.shape, generator=generator) * (torch.nan if count == 1 else 1.0)
            left.grad, right.grad = grad.to(left.dtype), grad.to(left.dtype)
        step()
        plain.step()
        for optimizer in (step.__self__, plain) if hasattr(step, "__self__") else (plain,):
            if isinstance(optimizer.param_groups[0]["lr"], torch.Tensor):
                optimizer.param_groups[0]["lr"].mul_(0.5)
    for left, right in zip(params, expected, strict=True):
        bound = 1e-2 if left.dtype == torch.bfloat16 else 1e-5
        difference = torch.linalg.vector_norm(left.detach().float() - right.detach().float())
        assert float(difference) <= bound * float(torch.linalg.vector_norm(right.detach().float()))
    assert plain.skipped_steps == 1


def _model(seed: int = 0) -> list[Any]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(7, 33), torch.nn.Tanh(), torch.nn.Linear(33, 5))
    return list(model.parameters())


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("block_size", [64, 65536])
def test_a_step_is_one_graph_and_the_same_step(torch_package: ModuleType, backend: str, block_size: int) -> None:
    params = _model()
    expected = copy.deepcopy(params)
    lr = torch.tensor(1.0)
    options = {"weight_decay": 0.01, "total_steps": 20, "block_size": block_size}
    optimizer = torch_package.Mnemosyne(params, lr=lr, **options)
    plain = torch_package.Mnemosyne(expected, lr=lr, **options)

    @torch.compile(fullgraph=True, backend=backend)
    def step() -> None:
        optimizer.step()

    _assert_same_steps(step, params, plain, expected, 4)
    assert counters["stats"]["unique_graphs"] == 1
    assert optimizer.skipped_steps == 1


def test_a_compiled_method_and_a_scheduler_break_the_graph_only_where_torch_does(torch_package: ModuleType) -> None:
    params = _model()
    optimizer = torch_package.Mnemosyne(params, lr=torch.tensor(1.0))
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, total_iters=3)
    step = torch.compile(optimizer.step, backend="eager")
    for _ in range(4):
        for param in params:
            param.grad = torch.randn_like(param)
        step()
        scheduler.step()
    assert counters["stats"]["unique_graphs"] == 1
    assert int(optimizer.param_groups[0]["step"]) == 4


@pytest.mark.parametrize(
    ("shapes", "dtype"),
    [([(64, 70), (4099,), (9,), (50, 64)], torch.float32), ([(50, 64), (4099,)], torch.bfloat16)],
)
def test_compiled_blocks_step_as_others_and_are_compiled_once(
    torch_package: ModuleType, shapes: list[tuple[int, ...]], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]
    expected = copy.deepcopy(params)
    optimizer = torch_package.Mnemosyne(params, weight_decay=0.01, block_size=1024, backend="compiled")
    plain = torch_package.Mnemosyne(expected, weight_decay=0.01, block_size=1024)
    _assert_same_steps(optimizer.step, params, plain, expected, 3)
    # One for the moments and one for the update, whatever the sizes.
    assert counters["stats"]["unique_graphs"] == 2
    assert optimizer.skipped_steps == 1
