"""Rounds that repeat are written as a loop, and compute the same."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax import lax

from mnemo_compile.exporters.optax import OptaxExporter
from mnemo_compile.exporters.optax._primitives import RENDERERS
from mnemo_compile.exporters.optax._repeats import bodies, LEAST, roll
from mnemo_compile.exporters.python import render
from mnemo_compile.frozen import FrozenCell
from mnemo_compile.program import compile_cell, Equation, evaluate, Literal, Operand, Program, Value
from tests.cells import cell_of


def value(name: str) -> Value:
    return Value(name, ("rows", 4), "float32")


def program(rounds: int, other: int | None = None, leak: int | None = None) -> Program:
    """Rounds of `x ← x² · c + x`. One of them has another c, or its square is an output, too."""
    start = value("start")
    equations, x = [Equation("abs", (start,), (value("x_0"),), {}, "")], value("x_0")
    outputs: list[tuple[str, Operand]] = []
    for place in range(rounds):
        square, scaled, after = (value(f"{name}_{place}") for name in ("square", "scaled", "after"))
        factor = Literal(0.25 if place == other else 0.5, "float32")
        equations.append(Equation("mul", (x, x), (square,), {}, ""))
        equations.append(Equation("mul", (square, factor), (scaled,), {}, ""))
        equations.append(Equation("add", (scaled, x), (after,), {}, ""))
        x = after
        if place == leak:
            outputs.append(("leak", square))
    end = value("end")
    equations.append(Equation("neg", (x,), (end,), {}, ""))
    return Program("phase", (start,), (), tuple(equations), (("out", end), *outputs))


def run(some: Program, inputs: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    scope: dict[str, Any] = {"jnp": jnp, "lax": lax, "Mapping": dict, "Array": jax.Array}
    for each in (*bodies(some), some):
        exec(render(each, RENDERERS, "optax", "Array"), scope)
    return scope["phase"]({}, {name: jnp.asarray(array) for name, array in inputs.items()})


@settings(max_examples=20, deadline=None)
@given(
    rounds=st.integers(0, 8),
    other=st.none() | st.integers(0, 7),
    leak=st.none() | st.integers(0, 7),
    seed=st.integers(0, 2**16),
)
def test_a_rolled_program_computes_the_same(rounds: int, other: int | None, leak: int | None, seed: int) -> None:
    some = program(rounds, other, leak)
    inputs = {"start": np.random.default_rng(seed).uniform(-0.5, 0.5, (3, 4)).astype(np.float32)}
    expected, outputs = evaluate(some, inputs), run(roll(some), inputs)
    assert outputs.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(outputs[name], array, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("rounds", "times"), [(LEAST - 1, []), (LEAST, [LEAST]), (6, [6])])
def test_rounds_are_one_equation_from_some_number_on(rounds: int, times: list[int]) -> None:
    rolled = roll(program(rounds))
    assert [e.params["times"] for e in rolled.equations if e.primitive == "repeat"] == times


@pytest.mark.parametrize("changes", [{"other": 2}, {"leak": 2}])
def test_a_round_that_is_not_like_the_others_is_no_part_of_a_loop(changes: dict[str, int]) -> None:
    rolled = roll(program(6, **changes))
    loops = [e.params["times"] for e in rolled.equations if e.primitive == "repeat"]
    assert all(times < 6 for times in loops)


def test_a_polar_factor_is_a_loop_of_three_products(frozen: FrozenCell) -> None:
    text = OptaxExporter().text(frozen, compile_cell(cell_of("tiled")))
    assert text.count("lax.fori_loop(0, 5,") == 1 and text.count(" einsum(") + text.count("(einsum(") == 3
