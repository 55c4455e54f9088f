"""A step that finds what the last one found takes the same step as one that looks at everything."""

import copy
import gc
import operator
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

SHAPES = [(40,), (33, 20), (6, 5, 3, 3), (100, 3), (0,), (9,)]


class _Training:
    """An optimizer and its parameters, which somebody meddles with."""

    def __init__(self, package: ModuleType, forgets: bool):
        generator = torch.Generator().manual_seed(0)
        self.params: list[Any] = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
        self.optimizer = package.Mnemosyne([{"params": self.params[:3]}, {"params": self.params[3:5]}], total_steps=30)
        self.generator = generator
        self.forgets = forgets
        self.frozen: set[int] = set()
        self.turned: set[int] = set()

    def step(self) -> None:
        for place, param in enumerate(self.params):
            grad = torch.randn(param.shape, generator=self.generator).to(param.dtype)
            if place in self.turned and grad.dim() == 2:
                grad = grad.t().contiguous().t()
            param.grad = None if place in self.frozen else grad
        if self.forgets:
            self.optimizer._last = None
        self.optimizer.step()

    def freeze(self, place: int) -> None:
        self.frozen ^= {place}

    def turn(self, place: int) -> None:
        self.turned ^= {place}

    def replace_data(self, place: int) -> None:
        self.params[place].data = self.params[place].data.clone()

    def turn_data(self, place: int) -> None:
        data = self.params[place].data
        if data.dim() == 2:
            self.params[place].data = data.t().contiguous().t() if data.is_contiguous() else data.contiguous()

    def widen(self, place: int) -> None:
        self.params[place].data = self.params[place].data.to(torch.bfloat16)
        self.params[place].grad = None
        self.params[place].data = self.params[place].data.to(torch.float32)

    def write(self, place: int) -> None:
        with torch.no_grad():
            self.params[place].mul_(0.5)

    def replace_parameter(self, place: int) -> None:
        groups = self.optimizer.param_groups
        group, own = (groups[0], place) if place < 3 else (groups[1], min(place - 3, 1))
        place = place if place < 3 else own + 3
        new = torch.nn.Parameter(self.params[place].detach().clone())
        self.optimizer.state[new] = self.optimizer.state.pop(self.params[place], {})
        self.params[place] = group["params"][own] = new

    def replace_state(self, place: int) -> None:
        state = self.optimizer.state.get(self.params[place], {})
        for name in state:
            state[name] = state[name] * 0.5

    def move_state(self, place: int) -> None:
        for value in self.optimizer.state.get(self.params[place], {}).values():
            value.data = value.data * 0.5

    def drop_state(self, place: int) -> None:
        self.optimizer.state.pop(self.params[place], None)

    def scale(self, place: int) -> None:
        self.optimizer.param_groups[place % 2]["lr"] *= 0.5

    def give_a_tensor(self, place: int) -> None:
        self.optimizer.param_groups[place % 2]["lr"] = torch.tensor(0.7)

    def label(self, place: int) -> None:
        group = self.optimizer.param_groups[0]
        # Matrices have another memory than these two.
        for param in group["params"] if group["role"] is None else ():
            self.optimizer.state.pop(param, None)
        group["role"] = "head" if group["role"] == "embedding" else "embedding"

    def add(self, place: int) -> None:
        if len(self.optimizer.param_groups) == 2:
            self.optimizer.add_param_group({"params": [self.params[5]], "lr": 0.3})

    def load(self, place: int) -> None:
        self.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))

    def copy(self, place: int) -> None:
        self.params, self.optimizer = copy.deepcopy((self.params, self.optimizer))


ACTIONS = [
    name for name, value in vars(_Training).items() if not name.startswith("_") and name != "step" and callable(value)
]


@settings(max_examples=40, deadline=None)
@given(
    history=st.lists(
        st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, len(SHAPES) - 1)), max_size=2),
        min_size=2,
        max_size=8,
    )
)
@example([[("label", 0)], [], [("label", 0)], []])
@example([[], [("move_state", 3)], [("move_state", 1)], []])
@example([[("freeze", 0)], [("freeze", 0), ("freeze", 1)], [("scale", 1)], [("replace_data", 0)]])
def test_a_step_forgets_what_is_no_longer_so(tiled: ModuleType, history: list[list[tuple[str, int]]]) -> None:
    remembers, forgets = _Training(tiled, False), _Training(tiled, True)
    for actions in history:
        for training in (remembers, forgets):
            for name, place in actions:
                operator.methodcaller(name, place)(training)
            training.step()
        assert remembers.optimizer.step_sizes() == forgets.optimizer.step_sizes()
    for left, right in zip(remembers.params, forgets.params, strict=True):
        assert torch.equal(left, right)
        states = (remembers.optimizer.state.get(left, {}), forgets.optimizer.state.get(right, {}))
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def _trained(package: ModuleType) -> tuple[Any, list[Any]]:
    training = _Training(package, False)
    for _ in range(3):
        training.step()
    return training.optimizer, training.params


def test_equal_steps_are_looked_at_once(tiled: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer, params = _trained(tiled)
    monkeypatch.setattr(optimizer, "_init_group", lambda *_: pytest.fail("the step looked at every parameter"))
    for param in params[:5]:
        param.grad = torch.ones_like(param)
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()


def test_a_gradient_is_freed_when_the_user_drops_it(tiled: ModuleType) -> None:
    optimizer, params = _trained(tiled)
    grads = [weakref.ref(param.grad) for param in params]
    assert all(grad() is not None for grad in grads)
    optimizer.zero_grad()
    params[5].grad = None
    gc.collect()
    assert all(grad() is None for grad in grads)


def test_parameters_and_state_go_with_the_optimizer(tiled: ModuleType) -> None:
    optimizer, params = _trained(tiled)
    kept = [StorageWeakRef(value.untyped_storage()) for value in _held(optimizer, params) if value.numel()]
    assert not any(storage.expired() for storage in kept)
    del optimizer, params
    gc.collect()
    assert all(storage.expired() for storage in kept)


def _held(optimizer: Any, params: list[Tensor]) -> list[Tensor]:
    return [*params, *(value for state in optimizer.state.values() for value in state.values())]


def test_parameters_can_be_swapped_after_a_step(tiled: ModuleType) -> None:
    """Modules do this where they move parameters in place."""
    optimizer, params = _trained(tiled)
    swap: Callable[..., None] = torch.utils.swap_tensors
    for param in params:
        param.grad = None
        swap(param, torch.nn.Parameter(param.detach().clone()))
        param.grad = torch.ones_like(param)
    optimizer.step()
