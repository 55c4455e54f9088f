"""Matrices take the polar factors of their tiles in the optax export: how they are read, divided and rounded."""

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st

from mnemo_compile.cell import PriorConfig
from mnemo_compile.step import describe, reference
from mnemo_compile.step.reference import layout_of
from tests.cells import cell_of
from tests.helpers import jitted_pack, jitted_step

PARAMETERS = {
    "Conv_0.kernel": (3, 3, 10, 40),
    "attention.c_attn.weight": (24, 72),
    "attention.qkv.weight": (72, 24),
    "attention.query.kernel": (20, 2, 15),
    "conv.weight": (20, 12, 3, 3),
    "dense.kernel": (33, 31),
    "embedding": (40, 30),
    "experts.w1": (4, 20, 33),
    "fc.bias": (7,),
    "high.weight": (129, 17),
    "prime.weight": (67, 61),
    "wide.weight": (13, 131),
}
"""Shapes of parameters, by names that say how they are read."""


def draw(seed: int, shapes: dict[str, tuple[int, ...]], scale: float = 1.0) -> dict[str, jax.Array]:
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(scale * random.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def stepper(transformation: Any) -> Any:
    @jax.jit
    def advance(params: Any, state: Any, grads: Any) -> Any:
        updates, state = transformation.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return advance


def run(transformation: Any, params: Any, history: list[Any], advance: Any = None) -> tuple[Any, Any]:
    advance, state = advance or stepper(transformation), transformation.init(params)
    for grads in history:
        params, state = advance(params, state, grads)
    return params, state


def assert_close(left: Any, right: Any, bound: float) -> None:
    for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert np.linalg.norm(x - y) <= bound * np.linalg.norm(y) + 1e-12


@pytest.mark.parametrize(
    "block_size", [2**18, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 300, 2000))]
)
def test_names_say_how_a_tensor_is_read_and_blocks_do_not_matter(package_of: Any, block_size: int) -> None:
    params, history = draw(0, PARAMETERS), [draw(step, PARAMETERS) for step in (1, 2)]
    after, state = run(package_of("tiled").mnemosyne(block_size=block_size), params, history)
    cell = cell_of("tiled")
    layout = layout_of(cell, list(PARAMETERS.values()), list(PARAMETERS))
    assert {list(PARAMETERS)[place] for place in layout.matrices} == set(PARAMETERS) - {"embedding", "fc.bias"}
    hyper = {"lr": jnp.array(1.0)}
    packed, expected_state = jitted_pack(layout, list(params.values())), reference.init(cell, layout)
    for grads in history:
        packed, expected_state = jitted_step(
            cell, layout, packed, jitted_pack(layout, list(grads.values())), expected_state, hyper
        )
    expected = dict(zip(PARAMETERS, reference.unpack(layout, packed), strict=True))
    assert_close(after, {name: expected[name] for name in sorted(expected)}, 1e-5)
    fast = dict(zip(PARAMETERS, reference.unpack(layout, expected_state.memory["fast"]), strict=True))
    assert_close(state.memory["fast"], {name: fast[name] for name in sorted(fast)}, 1e-5)


@pytest.fixture(scope="module")
def in_small_blocks(package_of: Any) -> tuple[Any, Any]:
    """A transformation whose blocks hold one tile, and its step."""
    transformation = package_of("tiled").mnemosyne(block_size=150)
    return transformation, stepper(transformation)


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_a_transposed_matrix_gets_the_transposed_update(in_small_blocks: Any, seed: int) -> None:
    transformation, advance = in_small_blocks
    shapes = {"a": (40, 31), "b": (13, 40)}
    params, history = draw(seed, shapes), [draw(seed + step, shapes) for step in (1, 2)]
    turn = lambda tree: jax.tree.map(jnp.transpose, tree)  # noqa: E731
    straight, _ = run(transformation, params, history, advance)
    turned, _ = run(transformation, turn(params), [turn(grads) for grads in history], advance)
    assert_close(turn(turned), straight, 1e-5)


def test_a_convolution_of_flax_moves_as_that_of_torch(package_of: Any) -> None:
    shapes = {"conv.weight": (20, 12, 3, 3)}
    params, history = draw(0, shapes), [draw(1, shapes)]

    def of_flax(tree: Any) -> Any:
        return {"conv.kernel": tree["conv.weight"].transpose(2, 3, 1, 0)}

    transformation = package_of("tiled").mnemosyne(block_size=500)
    torch, _ = run(transformation, params, history)
    flax, _ = run(transformation, of_flax(params), [of_flax(grads) for grads in history])
    assert_close(flax, of_flax(torch), 1e-6)


LABELS = {"a": ["embedding", None], "b": {"c": "matrix", "d": None}, "nothing": None}
LABELLED = {"a": [(20, 16), (20, 16)], "b": {"c": (3, 5, 40), "d": (9,)}, "nothing": None}


def test_a_tree_of_labels_is_a_function_of_paths(package_of: Any) -> None:
    is_shape = lambda leaf: isinstance(leaf, tuple)  # noqa: E731
    params = jax.tree.map(lambda shape: jnp.arange(1.0, 1 + np.prod(shape)).reshape(shape), LABELLED, is_leaf=is_shape)
    grads = jax.tree.map(jnp.cos, params)
    said = {"a.0": "embedding", "b.c": "matrix"}
    by_function, state = run(package_of("tiled").mnemosyne(roles=lambda path, _: said.get(path)), params, [grads])
    by_tree, same = run(package_of("tiled").mnemosyne(roles=LABELS), params, [grads])
    for left, right in zip(jax.tree.leaves((by_tree, same)), jax.tree.leaves((by_function, state)), strict=True):
        np.testing.assert_array_equal(left, right)
    assert state.memory["square"]["a"][0].shape == (20, 16) and state.memory["square"]["a"][1].shape == (0,)
    masked = optax.masked(package_of("tiled").mnemosyne(roles=LABELS), {"a": True, "b": False, "nothing": True})
    inner: Any = masked.init(params)
    assert inner.inner_state.memory["square"]["a"][0].shape == (20, 16)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"a": [None, None], "nothing": None}, r"without \['b'\]\['c'\]"),
        ({**LABELS, "other": "matrix"}, r"with \['other'\]"),
        ({}, r"without \['a'\]\[0\]"),
        ("matrix", r"without"),
    ],
)
def test_a_tree_of_labels_for_other_parameters_is_refused(package_of: Any, labels: Any, message: str) -> None:
    params = {"a": [jnp.ones((4, 5))] * 2, "b": {"c": jnp.ones((2, 3, 4)), "d": jnp.ones(3)}, "nothing": None}
    with pytest.raises(
        ValueError, match=f"roles are a tree {message}.*; give a role or None for each of them"
    ) as caught:
        package_of("tiled").mnemosyne(roles=labels).init(params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("bias", r"the role of decoder.kernel of shape \(4,\) must be one of vector, matrix, .*, got 'bias'"),
        (3, r"the role of decoder.kernel of shape \(4,\) must be one of .*, got 3"),
        ("matrix", r"role 'matrix' needs 2 axes or more, and decoder.kernel of shape \(4,\) has 1"),
    ],
)
def test_a_label_that_does_not_fit_is_refused(package_of: Any, label: Any, message: str) -> None:
    params = {"decoder": {"kernel": jnp.ones(4)}}
    transformation = package_of("tiled").mnemosyne(roles=lambda path, array: label)
    with pytest.raises(ValueError, match=message):
        transformation.init(params)
    with pytest.raises(ValueError, match=message):
        transformation.update(params, package_of("tiled").mnemosyne().init(params), params)


def test_a_log_line_names_what_is_ambiguous(package_of: Any, caplog: pytest.LogCaptureFixture) -> None:
    params = {"thing": jnp.ones((3, 40, 50)), "other": jnp.ones((40, 2, 60)), "dense": {"kernel": jnp.ones((4, 5))}}
    assert describe((3, 40, 50), name="thing").reason == "ambiguous"
    with caplog.at_level(logging.WARNING):
        state = package_of("tiled").mnemosyne().init(params)
        jax.jit(package_of("tiled").mnemosyne().update)(params, state, params)
        package_of("tiled").mnemosyne(roles={"thing": "matrix", "other": "embedding", "dense": {"kernel": None}}).init(
            params
        )
    (record,) = caplog.records
    assert "these parameters hold: other, thing;" in record.getMessage()


BAD = {
    "zeros": lambda random, shape: np.zeros(shape),
    "rank one": lambda random, shape: np.outer(random.normal(size=shape[0]), random.normal(size=shape[1])),
    "one entry": lambda random, shape: np.pad([[2.0]], [(0, shape[0] - 1), (0, shape[1] - 1)]),
    "ill-conditioned": lambda random, shape: random.normal(size=shape) * np.logspace(0, -8, shape[1]),
    "huge": lambda random, shape: 1e15 * random.normal(size=shape),
    "tiny": lambda random, shape: 1e-30 * random.normal(size=shape),
    "nan": lambda random, shape: np.where(random.random(shape) < 0.1, np.nan, 1.0),
    "float16": lambda random, shape: (6e4 * np.sign(random.normal(size=shape))).astype(np.float16),
}
EDGES = [(129, 129), (1, 50), (50, 1), (1, 1), (13, 12), (0, 5), (5, 0)]


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_gradient_gives_a_right_step_or_none(package_of: Any, kind: str) -> None:
    random = np.random.default_rng(0)
    shapes = [shape for shape in EDGES if np.prod(shape)]
    grads = {str(shape): jnp.asarray(BAD[kind](random, shape)) for shape in shapes}
    grads = {**grads, **{str(shape): jnp.zeros(shape) for shape in EDGES if not np.prod(shape)}}
    params = {name: jnp.ones(grad.shape, jnp.float32) for name, grad in grads.items()}
    after, state = run(package_of("tiled").mnemosyne(block_size=1000), params, [grads, grads])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((after, state)))
    assert int(state.skipped) == (2 if kind == "nan" else 0)
    if kind in ("zeros", "nan"):
        assert_close(after, params, 0)
    else:
        assert all(np.any(after[str(shape)] != 1) for shape in [(129, 129), (13, 12)])


def test_whether_a_network_is_pretrained_is_an_option(prior: Any) -> None:
    shapes = {"dense.kernel": (20, 30), "norm.scale": (30,)}
    params, history = draw(0, shapes), [draw(1, shapes)]
    unknown, _ = run(prior.mnemosyne(), params, history)
    injected = optax.inject_hyperparams(prior.mnemosyne, static_args="block_size")(pretrained=jnp.array(False))
    state: Any = injected.init(params)
    advance = stepper(injected)
    fresh, _ = advance(params, state, history[0])
    state.hyperparams["pretrained"] = jnp.array(True)
    pretrained, _ = advance(params, state, history[0])
    assert_close(unknown, fresh, 1e-6)
    for name, start in params.items():
        moved, less = (np.linalg.norm(after[name] - start) for after in (fresh, pretrained))
        assert less == pytest.approx(PriorConfig().pretrained * moved, rel=1e-3)


@pytest.mark.parametrize("wrong", [1, "yes", 0.5])
def test_pretrained_is_true_or_false_or_none(prior: Any, wrong: Any) -> None:
    with pytest.raises(ValueError, match="pretrained must be True or False, or None if it is not known, not"):
        prior.mnemosyne(pretrained=wrong)


def test_weight_decay_means_what_it_means_to_adamw(prior: Any) -> None:
    """A step takes `weight_decay` × 1e-3 × the schedule off a parameter, also off one that is tiled."""
    params = draw(0, {"dense.kernel": (20, 30), "fc.bias": (30,), "embedding": (40, 30)})
    zeros = [jax.tree.map(jnp.zeros_like, params)] * 3
    after, _ = run(prior.mnemosyne(lr=0.5, weight_decay=0.1), params, zeros)
    # Without a horizon a step grows over twenty steps.
    remaining = np.prod([1 - 0.5 * 0.1 * 1e-3 * step / 20 for step in (1, 2, 3)])
    assert_close(after, jax.tree.map(lambda param: remaining * param, params), 1e-6)
    lost = jax.tree.map(
        lambda left, right: float(jnp.sum((left - right) * right) / jnp.sum(right * right)), params, after
    )
    assert all(value == pytest.approx(1 - remaining, rel=0.1) for value in lost.values())


def products(package: Any, platform: str, **options: Any) -> list[str]:
    """The products of matrices in a step that is lowered for a platform."""
    transformation, params = package.mnemosyne(**options), {"w": jnp.ones((40, 30))}
    traced = jax.jit(transformation.update).trace(params, transformation.init(params), params)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    return [line for line in text.splitlines() if "stablehlo.dot_general" in line]


@pytest.mark.parametrize("ambient", [None, "bfloat16", "highest", "tensorfloat32"])
def test_the_precision_of_products_is_ours(package_of: Any, ambient: str | None) -> None:
    package = package_of("tiled")
    with jax.default_matmul_precision(ambient):
        for options in ({}, {"precision": "tf32"}, {"precision": "float32"}):
            dots = products(package, "cpu", **options)
            assert dots and all("precision = [HIGHEST, HIGHEST]" in dot and "bf16" not in dot for dot in dots)
        assert all("HIGHEST" in dot and "bf16" not in dot for dot in products(package, "cuda", precision="float32"))
        assert all("[HIGH, HIGH]" in dot and "bf16" not in dot for dot in products(package, "cuda", precision="tf32"))
        dots = products(package, "cuda")
        assert dots and all("[DEFAULT, DEFAULT]" in dot and dot.count("bf16") == 2 and "f32" in dot for dot in dots)
    with pytest.raises(ValueError, match="precision must be one of bfloat16, tf32, float32, not 'half'"):
        package.mnemosyne(precision="half")


def test_products_of_bfloat16_give_nearly_the_same_step(package_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package = package_of("tiled")
    shapes = {"w": (40, 30), "v": (9,)}
    params, history = draw(0, shapes), [draw(1, shapes)]
    exact, _ = run(package.mnemosyne(), params, history)
    monkeypatch.setattr(
        package._products,
        "_einsum",
        lambda subscripts, precision, *arrays: package._products.rounded_einsum(subscripts, precision, *arrays),
    )
    rounded, _ = run(package.mnemosyne(), params, history)
    np.testing.assert_array_equal(rounded["v"], exact["v"])
    error = np.linalg.norm(rounded["w"] - exact["w"]) / np.linalg.norm(exact["w"] - params["w"])
    assert 1e-4 < error < 0.1
