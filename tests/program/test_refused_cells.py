"""Cells that cannot be compiled are refused in one sentence that names the phase and the line."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from mnemo_compile.cell import (
    AbstractCell,
    AbstractCellConfig,
    Adam,
    AdamConfig,
    cell_config,
    Chunks,
    MemorySlot,
    register_cell,
)
from mnemo_compile.errors import MnemoError, UsageError
from mnemo_compile.exporters import emitted_text, targets
from mnemo_compile.frozen import freeze
from mnemo_compile.program import compile_cell

Rule = Callable[[Any], Any]


class Scripted(AbstractCell):
    """Gradient descent whose gradient goes through a function first."""

    rule: Rule = eqx.field(static=True)
    config: Any = eqx.field(static=True, default=AdamConfig())
    chunk_length: int = eqx.field(static=True, default=32)
    sample_chunks: int = eqx.field(static=True, default=16)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(static=True, default=())

    def measure(self, param: Any, grad: Any) -> Any:
        return {"square": jnp.sum(grad * grad, axis=1)}

    def decode(self, chunks: Chunks, context: Any) -> Any:
        return self.rule(chunks.grad), {}


calls: list[Any] = []


def counts(grad: Any) -> Any:
    calls.append(None)
    return grad * len(calls)


def keeps(grad: Any) -> Any:
    calls.append(grad)
    return grad


def branches(grad: Any) -> Any:
    return grad if grad[0, 0] > 0 else -grad


def chooses(grad: Any) -> Any:
    return grad[grad > 0].sum() * grad


def sized(grad: Any) -> Any:
    return jnp.zeros(int(grad[0, 0])).sum() * grad


def as_numpy(grad: Any) -> Any:
    import numpy as np

    return grad * np.asarray(grad).sum()


def prints(grad: Any) -> Any:
    jax.debug.print("{}", grad.sum())
    return grad


def asks(grad: Any) -> Any:
    return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(grad.shape, grad.dtype), grad)


def breaks(grad: Any) -> Any:
    raise KeyError("no such thing")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (branches, r"the cell's update \(test_refused_cells\.py:\d+\) needs to know a value to decide what to compute"),
        (chooses, r"the cell's update \(test_refused_cells\.py:\d+\) needs to know a value to decide what to compute"),
        (sized, r"the cell's update \(test_refused_cells\.py:\d+\) needs to know a value to decide what to compute"),
        (as_numpy, r"the cell's update \(test_refused_cells\.py:\d+\) needs to know a value to decide what to compute"),
        (prints, r"the cell's update \(test_refused_cells\.py:\d+\) calls back into Python with debug_"),
        (asks, r"the cell's update \(test_refused_cells\.py:\d+\) calls back into Python with pure_callback"),
        (
            counts,
            r"the cell's update is not the same when it is traced again, so it depends on more than its arguments",
        ),
        (keeps, r"the cell's update keeps an array of the trace outside of it, such as in a list"),
        (breaks, r"the cell's update \(test_refused_cells\.py:\d+\) cannot be traced: KeyError: 'no such thing'"),
    ],
)
def test_what_no_target_could_do_is_refused_by_phase_and_line(rule: Rule, message: str) -> None:
    with pytest.raises(MnemoError, match=message) as caught:
        compile_cell(Scripted(rule=rule))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", targets())
def test_a_primitive_that_a_target_lacks_is_named_with_its_line_and_what_there_is(target: str) -> None:
    frozen = freeze(Sorting(SortingConfig()), name="sorting", version="1.0.0")
    expected = (
        rf"the primitive sort \(test_refused_cells\.py:\d+\) cannot be said in {target}; say it with: abs, .*transpose"
    )
    with pytest.raises(MnemoError, match=expected):
        emitted_text(frozen, target)


@register_cell
class SortingConfig(AbstractCellConfig):
    kind: Literal["sorting"] = "sorting"

    def build(self) -> AbstractCell:
        return Sorting(self)


def Sorting(config: SortingConfig) -> Scripted:  # noqa: N802
    """A cell of a primitive that no target has."""
    return Scripted(rule=functools.partial(jnp.sort, axis=1), config=config)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int32, jnp.complex64])
def test_weights_of_an_odd_dtype_are_refused_by_name(dtype: Any) -> None:
    cell: Adam = AdamConfig().build()
    cell = eqx.tree_at(lambda c: c.epsilon, cell, cell.epsilon.astype(dtype))
    for use in (compile_cell, lambda c: freeze(c, name="odd", version="1.0.0")):
        with pytest.raises(MnemoError, match=rf"the weight epsilon of Adam is {jnp.dtype(dtype)}; weights are float32"):
            use(cell)


def test_a_kind_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="there is no kind of cell 'vello'; there are adam, .*lstm, mnemosyne"):
        cell_config({"kind": "vello"})


def test_a_kind_belongs_to_one_class() -> None:
    class Other(AbstractCellConfig):
        kind: Literal["adam"] = "adam"

        def build(self) -> AbstractCell:
            return AdamConfig().build()

    with pytest.raises(UsageError, match="the kind 'adam' belongs to mnemo_compile.cell._adam.AdamConfig"):
        register_cell(Other)
    with pytest.raises(UsageError, match="has no kind"):
        register_cell(AbstractCellConfig)
