"""Every pass keeps what a program means, on programs that are drawn at random."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from mnemo_compile.program import (
    canonicalise,
    check,
    CLOSED_SET,
    cost,
    dce,
    Equation,
    evaluate,
    for_compiler,
    fuse,
    inline,
    Operand,
    optimise,
    Pass,
    PASSES,
    Program,
    rows_of,
    separate,
    trace,
    unstack,
    Value,
)
from tests.programs import arrays_of, largest, phases

Arrays = Mapping[str, Any]
ROWS = 5
WEIGHTS = {
    "matrix": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32),
    "bias": np.random.default_rng(1).normal(size=(4,)).astype(np.float32),
    "rate": np.float32(0.3) * np.ones((), np.float32),
}
SHAPES = {"grad": (4,), "param": (4,), "context.row": (), "context.wide": (3, 4)}
"""What chunks have, and what their tensor has."""

SMOOTH: list[Callable[[Any], Any]] = [
    jnp.tanh,
    jnp.cos,
    jnp.sin,
    jnp.square,
    jnp.abs,
    jax.nn.sigmoid,
    jax.nn.relu,
    jax.nn.softplus,
    jax.lax.erf,
    jax.lax.stop_gradient,
    lambda x: x**3,
    lambda x: 1 / (1 + x**2),
    lambda x: jnp.exp(-jnp.abs(x)),
    lambda x: jnp.log1p(jnp.abs(x)),
    lambda x: jnp.expm1(-jnp.abs(x)),
    lambda x: jax.lax.rsqrt(1 + x * x),
    lambda x: jnp.clip(x, -0.5, 0.5),
    lambda x: jax.jit(lambda u: u + jnp.asarray([1.0, 2.0, 3.0, 4.0]).sum())(x),
    lambda x: x[:, None],
    lambda x: jnp.moveaxis(x, 0, -1).T,
    lambda x: x * 1.0 + 0.0,
    lambda x: jnp.log(1 + x * x),
    lambda x: jnp.broadcast_to(x[..., :1], x.shape) if x.ndim > 1 else x,
]
# What is rounded differently before them may be far apart behind them.
STEEP: list[Callable[[Any], Any]] = [
    jnp.floor,
    jnp.sign,
    lambda x: jnp.sqrt(jnp.abs(x)),
    lambda x: jnp.where(x > 0.25, x, 2.0),
    lambda x: jnp.where((x <= 0) | ~(x < 1), x, -x),
    lambda x: jnp.where(jnp.isfinite(x) & (x != 0), x, 1.0),
    lambda x: x.astype(jnp.int32).astype(jnp.float32),
]
LAST: list[Callable[[Any], Any]] = [
    lambda x: jnp.sum(x, axis=-1),
    lambda x: jnp.max(x, axis=-1),
    lambda x: jnp.min(x, axis=-1),
    lambda x: jnp.mean(x, axis=-1, keepdims=True),
    lambda x: jax.nn.softmax(x, axis=-1),
    lambda x: jnp.concatenate([x, x], axis=-1)[..., 2:6],
    lambda x: jnp.stack([x, -x])[0],
    lambda x: x[..., 1:3],
    lambda x: x[..., -1],
    lambda x: jnp.concatenate(jnp.split(x, 2, axis=-1)[::-1], axis=-1),
]
WIDTH_FOUR: list[Callable[[Any, Arrays], Any]] = [
    lambda x, w: x @ w["matrix"].T,
    lambda x, w: jnp.einsum("...a,ba->...b", x, jnp.exp(w["matrix"])),
    lambda x, w: x * jnp.exp(-jnp.exp(w["rate"])) + w["bias"],
    lambda x, w: x @ (w["matrix"].T @ w["matrix"]),
    lambda x, w: jnp.max(jnp.einsum("ba,b...->a...", w["matrix"], jnp.stack([x, jnp.tanh(x), x * x])), axis=0),
    lambda x, w: jnp.sum(jax.nn.softmax(jnp.stack([x, 0.5 * x]), axis=0) * jnp.stack([x, x * w["rate"]]), axis=0),
]
BINARY: list[Callable[[Any, Any], Any]] = [
    jnp.add,
    jnp.subtract,
    jnp.multiply,
    jnp.maximum,
    jnp.minimum,
    lambda x, y: x / (1 + jnp.abs(y)),
    lambda x, y: jnp.where(x >= y, x, y),
    lambda x, y: jnp.power(jnp.abs(x) + 0.5, jnp.tanh(y)),
]

Draw = tuple[int, int, int, int]
Function = Callable[[Arrays, Arrays], dict[str, Any]]


def build(draws: list[Draw], unary: Sequence[Callable[[Any], Any]] = (*SMOOTH, *STEEP)) -> Function:
    """The function that applies what was drawn to what it has so far."""

    def function(weights: Arrays, inputs: Arrays) -> dict[str, Any]:
        pool = [inputs[name] for name in sorted(inputs)]
        for kind, which, left, right in draws:
            x, y = pool[left % len(pool)], pool[right % len(pool)]
            if kind == 0 and x.ndim <= 3:
                pool.append(unary[which % len(unary)](x))
            elif kind == 1 and x.ndim > 1 and x.shape[-1] == 4:
                pool.append(LAST[which % len(LAST)](x))
            elif kind == 2 and x.ndim > 1 and x.shape[-1] == 4:
                pool.append(WIDTH_FOUR[which % len(WIDTH_FOUR)](x, weights))
            elif kind == 3 and x.ndim == y.ndim and all(a == b or 1 in (a, b) for a, b in zip(x.shape, y.shape)):
                pool.append(BINARY[which % len(BINARY)](x, y))
        return {f"out{i}": value for i, value in enumerate(pool[-3:])}

    return function


DRAWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 99), st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=20
)
MANY = hypothesis.settings(max_examples=60, deadline=None)


def inputs(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.normal(size=(ROWS, *shape)).astype(np.float32) for name, shape in SHAPES.items()}


def traced(function: Function) -> Program:
    return trace("p", function, WEIGHTS, {name: rows_of(*shape) for name, shape in SHAPES.items()})


def assert_same(left: Mapping[str, np.ndarray], right: Mapping[str, Any], bound: float) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        other = np.asarray(right[name], np.float64)
        assert value.shape == other.shape
        np.testing.assert_allclose(
            np.asarray(value, np.float64), other, rtol=bound, atol=bound * (1 + abs(other).max())
        )


@MANY
@given(draws=DRAWS, seed=st.integers(0, 3))
def test_a_program_means_what_its_function_computes(draws: list[Draw], seed: int) -> None:
    expected = build(draws)({name: jnp.asarray(w) for name, w in WEIGHTS.items()}, inputs(seed))
    program = optimise(traced(build(draws)))
    assert {equation.primitive for equation in program.equations} <= CLOSED_SET
    given_ = {value.name: inputs(seed)[value.name] for value in program.inputs}
    assert_same(evaluate(program, given_), expected, 2e-4)


@pytest.mark.parametrize("name", list(PASSES)[2:])
@hypothesis.settings(max_examples=50, deadline=None)
@given(draws=DRAWS, seed=st.integers(0, 3))
# An einsum whose only use is a transpose, which random programs seldom have.
@hypothesis.example(draws=[(0, 0, 0, 0), (2, 0, 1, 0), (0, 0, 0, 0), (0, 0, 0, 0), (0, 49, 5, 0)], seed=0)
def test_a_pass_changes_no_result(name: str, draws: list[Draw], seed: int) -> None:
    before = canonicalise(inline(traced(build(draws))))
    after = check(PASSES[name](before), name)
    # What is folded is rounded to float32, whatever the rest is computed in.
    bound = 1e-4 if name == "fold" else 1e-12
    expected = evaluate(before, inputs(seed), np.float64)
    assert_same(evaluate(after, inputs(seed), np.float64), expected, bound)
    # What a pass leaves without use goes later.
    old, new = cost(PASSES["dce"](before)), cost(PASSES["dce"](after))
    assert new <= old or new.operations <= old.operations


def outlined(program: Program, start: int, stop: int) -> Program:
    """The program with some of its consecutive equations as a call."""
    inside = program.equations[start:stop]
    made = {output for equation in inside for output in equation.outputs}
    read = dict.fromkeys(o for e in inside for o in e.inputs if isinstance(o, Value) and o not in made)
    used = [o for e in program.equations[stop:] for o in e.inputs] + [operand for _, operand in program.outputs]
    given_out = tuple(dict.fromkeys(o for o in used if isinstance(o, Value) and o in made))
    body = Program("part", tuple(read), (), inside, tuple((str(i), value) for i, value in enumerate(given_out)))
    renamed = tuple(dataclasses.replace(value, name=f"{value.name}.out") for value in given_out)
    after: dict[Operand, Value] = dict(zip(given_out, renamed, strict=True))
    rest = tuple(
        dataclasses.replace(e, inputs=tuple(after.get(o, o) for o in e.inputs)) for e in program.equations[stop:]
    )
    call = Equation("call", tuple(read), renamed, {"name": "part", "body": body}, "part.py:1")
    outputs = tuple((name, after.get(operand, operand)) for name, operand in program.outputs)
    return dataclasses.replace(program, equations=(*program.equations[:start], call, *rest), outputs=outputs)


@hypothesis.settings(max_examples=50, deadline=None)
@given(draws=DRAWS.filter(lambda draws: len(draws) > 4), places=st.tuples(st.integers(0, 30), st.integers(1, 30)))
def test_inlining_a_part_gives_the_whole(draws: list[Draw], places: tuple[int, int]) -> None:
    program = canonicalise(inline(traced(build(draws))))
    start = min(places[0], len(program.equations))
    called = outlined(program, start, start + places[1])
    assert any(equation.body is not None for equation in called.equations)
    whole = inline(called)
    assert all(equation.body is None for equation in whole.equations)
    expected = evaluate(program, inputs(0), np.float64)
    assert_same(evaluate(called, inputs(0), np.float64), expected, 1e-12)
    assert_same(evaluate(whole, inputs(0), np.float64), expected, 1e-12)


@hypothesis.settings(max_examples=50, deadline=None)
@given(draws=DRAWS)
def test_nothing_is_left_that_a_pass_would_take(draws: list[Draw]) -> None:
    program = optimise(traced(build(draws)))
    used = {o for e in program.equations for o in e.inputs} | {operand for _, operand in program.outputs}
    assert all(used.intersection(equation.outputs) for equation in program.equations)
    weights = set(program.weights)
    assert weights <= used
    assert not any(e.inputs and weights.issuperset(e.inputs) for e in program.equations)
    assert dce(program) == program


def run(parts: Sequence[Program], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of the last program; the others compute inputs of it."""
    env = dict(arrays)
    for part in parts[:-1]:
        env.update(evaluate(part, {value.name: env[value.name] for value in part.inputs}, np.float64))
    return evaluate(parts[-1], {value.name: env[value.name] for value in parts[-1].inputs}, np.float64)


def separated(program: Program, *passes: Pass) -> list[Program]:
    """A phase over chunks in two programs, each checked and lowered on."""
    return [optimise(check(part, "separate"), passes) for part in separate(program, 4) if part is not None]


LOWERINGS: dict[str, Callable[[Program], list[Program]]] = {
    "fuse": lambda program: [optimise(program, [fuse])],
    "for_compiler": lambda program: [optimise(program, [for_compiler])],
    "unstack": lambda program: [optimise(program, [unstack])],
    "separate": separated,
    "separate, fuse": lambda program: separated(program, fuse),
    "separate, unstack, for_compiler": lambda program: separated(program, unstack, for_compiler),
}


def assert_lowers(program: Program, arrays: Mapping[str, np.ndarray]) -> None:
    bound = largest(program, arrays)
    hypothesis.assume(bound < 1e6)
    expected = run([program], arrays)
    for name, lower in LOWERINGS.items():
        for key, value in run(lower(program), arrays).items():
            atol = 1e-9 * (1 + bound)
            np.testing.assert_allclose(value, expected[key], rtol=1e-9, atol=atol, err_msg=f"{key} after {name}")


@hypothesis.settings(max_examples=300, deadline=None)
@given(program=phases(), seed=st.integers(0, 3))
def test_a_lowering_changes_nothing_but_rounding(program: Program, seed: int) -> None:
    assert_lowers(program, arrays_of(program.inputs, ROWS, seed))


@hypothesis.settings(max_examples=30, deadline=None)
@given(draws=DRAWS, seed=st.integers(0, 3))
def test_a_lowering_changes_nothing_of_a_function_but_rounding(draws: list[Draw], seed: int) -> None:
    whole = traced(build(draws, SMOOTH))
    program = optimise(whole)
    hypothesis.assume(program.equations)
    assert_lowers(program, arrays_of(whole.inputs, ROWS, seed))
