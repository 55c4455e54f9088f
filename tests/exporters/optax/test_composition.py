"""The optax export composes with optax and with JAX's transformations."""

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st

SHAPES = {"a": (7,), "b": {"c": (5, 6), "d": ()}}
Tree = Any


def arrays(shapes: Tree, seed: int) -> Tree:
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(random.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def stepper(transformation: Any) -> Callable[..., Any]:
    @jax.jit
    def advance(params: Tree, state: Any, grads: Tree) -> tuple[Tree, Any]:
        updates, state = transformation.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return advance


def run(transformation: Any, params: Tree, history: list[Tree], advance: Any = None) -> tuple[Tree, Any]:
    advance, state = advance or stepper(transformation), transformation.init(params)
    for grads in history:
        params, state = advance(params, state, grads)
    return params, state


def assert_close(left: Tree, right: Tree, bound: float = 1e-6) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert np.linalg.norm(x - y) <= bound * np.linalg.norm(y) + 1e-12


@pytest.fixture(scope="module")
def history() -> list[Tree]:
    return [arrays(SHAPES, 100 + step) for step in range(3)]


@pytest.fixture(scope="module")
def params() -> Tree:
    return arrays(SHAPES, 0)


@pytest.fixture(scope="module")
def five_steps(optax_package: ModuleType) -> tuple[Any, Callable[..., Any]]:
    """A transformation that is told of five steps, and its step, compiled once."""
    transformation = optax_package.mnemosyne(total_steps=5)
    return transformation, stepper(transformation)


@pytest.fixture(scope="module")
def alone(five_steps: tuple[Any, Callable[..., Any]], params: Tree, history: list[Tree]) -> tuple[Tree, Any]:
    """Parameters and state after three steps by itself."""
    return run(five_steps[0], params, history, five_steps[1])


def test_a_chain_does_one_after_the_other(
    optax_package: ModuleType, params: Tree, history: list[Tree], alone: tuple[Tree, Any]
) -> None:
    chained = optax.chain(optax.scale(-1.0), optax_package.mnemosyne(total_steps=5), optax.scale(1.0))
    flipped = [jax.tree.map(jnp.negative, grads) for grads in history]
    assert_close(run(chained, params, flipped)[0], alone[0])


@pytest.mark.slow
def test_each_group_has_its_own_transformation(optax_package: ModuleType, params: Tree, history: list[Tree]) -> None:
    alone, _ = run(optax_package.mnemosyne(total_steps=5), {"b": params["b"]}, [{"b": g["b"]} for g in history])
    groups: Any = {"ours": optax_package.mnemosyne(total_steps=5), "sgd": optax.sgd(0.1)}
    for parted in (optax.multi_transform, optax.partition):
        result, _ = run(parted(groups, {"a": "sgd", "b": "ours"}), params, history)
        assert_close(result["b"], alone["b"], 1e-5)
        assert_close({"a": result["a"]}, run(optax.sgd(0.1), {"a": params["a"]}, [{"a": g["a"]} for g in history])[0])


def test_what_is_masked_passes_through(optax_package: ModuleType, params: Tree, history: list[Tree]) -> None:
    masked = optax.masked(optax_package.mnemosyne(), {"a": True, "b": {"c": False, "d": True}})
    updates, state = jax.jit(masked.update)(history[0], masked.init(params), params)
    np.testing.assert_array_equal(updates["b"]["c"], history[0]["b"]["c"])
    assert np.any(updates["a"] != history[0]["a"])
    assert isinstance(state.inner_state.memory["fast"]["b"]["c"], optax.MaskedNode)


def test_trees_may_have_nothing_in_places(
    optax_package: ModuleType, params: Tree, history: list[Tree], alone: tuple[Tree, Any]
) -> None:
    class Model(dict):
        """A dictionary of another class."""

    jax.tree_util.register_pytree_with_keys(
        Model,
        lambda model: ([(jax.tree_util.DictKey(key), model[key]) for key in sorted(model)], tuple(sorted(model))),
        lambda keys, values: Model(zip(keys, values, strict=True)),
    )

    def dressed(tree: Tree) -> Tree:
        return Model(first=None, rest=[tree, (), None])

    result, state = run(optax_package.mnemosyne(total_steps=5), dressed(params), list(map(dressed, history)))
    assert_close(result, dressed(alone[0]))
    assert state.memory["slow"]["first"] is None


def test_gradients_can_be_accumulated(
    optax_package: ModuleType, params: Tree, history: list[Tree], alone: tuple[Tree, Any]
) -> None:
    several = optax.MultiSteps(optax_package.mnemosyne(total_steps=5), every_k_schedule=2)
    halves = [jax.tree.map(lambda g, k=k: g * k, grads) for grads in history for k in (0.5, 1.5)]
    assert_close(run(several, params, halves)[0], alone[0], 1e-5)


@pytest.mark.slow
def test_hyperparameters_can_be_injected(optax_package: ModuleType, params: Tree, history: list[Tree]) -> None:
    make = optax.inject_hyperparams(optax_package.mnemosyne, static_args=("total_steps", "block_size"))
    injected = make(lr=0.5, weight_decay=0.1, total_steps=5)
    fixed = optax_package.mnemosyne(lr=0.5, weight_decay=0.1, total_steps=5)
    assert_close(run(injected, params, history)[0], run(fixed, params, history)[0])
    state: Any = injected.init(params)
    state.hyperparams["lr"] = jnp.asarray(0.0)
    updates, _ = jax.jit(injected.update)(history[0], state, params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))


def test_the_horizon_may_be_an_array(
    optax_package: ModuleType, params: Tree, history: list[Tree], alone: tuple[Tree, Any]
) -> None:
    make = optax.inject_hyperparams(optax_package.mnemosyne, static_args="block_size")
    assert_close(run(make(total_steps=5), params, history)[0], alone[0])


def test_a_block_size_that_is_traced_is_refused_with_the_mend(optax_package: ModuleType, params: Tree) -> None:
    with pytest.raises(ValueError, match="name it in the static_args of optax.inject_hyperparams"):
        optax.inject_hyperparams(optax_package.mnemosyne)(block_size=4096).init(params)


def test_apply_if_finite_keeps_the_state(optax_package: ModuleType, params: Tree, history: list[Tree]) -> None:
    careful = optax.apply_if_finite(optax_package.mnemosyne(), max_consecutive_errors=3)
    state = careful.init(params)
    broken = jax.tree.map(lambda g: g * jnp.nan, history[0])
    updates, after = jax.jit(careful.update)(broken, state, params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))
    assert int(after.total_notfinite) == 1 and int(after.inner_state.skipped) == 0
    updates, after = jax.jit(careful.update)(history[0], after, params)
    assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(updates)) and int(after.inner_state.step) == 1


def test_a_training_loop_can_be_scanned(
    five_steps: tuple[Any, Callable[..., Any]], params: Tree, history: list[Tree], alone: tuple[Tree, Any]
) -> None:
    transformation, advance = five_steps

    def body(carry: Any, grads: Tree) -> Any:
        return advance(*carry, grads), None

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *history)
    (result, state), _ = jax.lax.scan(body, (params, transformation.init(params)), stacked)
    assert_close(result, alone[0])
    assert int(state.step) == 3


@pytest.mark.parametrize("block_size", [pytest.param(64, marks=pytest.mark.slow), 4096])
def test_an_ensemble_equals_its_members(optax_package: ModuleType, block_size: int) -> None:
    shapes = {"w": (16, 20), "v": (9,)}
    transformation = optax_package.mnemosyne(block_size=block_size)
    members = [arrays(shapes, seed) for seed in range(3)]
    grads = [arrays(shapes, 10 + seed) for seed in range(3)]
    # One of them has a gradient that is not finite, and steps by itself.
    grads[1]["v"] = grads[1]["v"].at[0].set(jnp.inf)
    together = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees) for trees in (members, grads)]
    states = jax.vmap(transformation.init)(together[0])
    updates, states = jax.jit(jax.vmap(transformation.update))(together[1], states, together[0])
    update = jax.jit(transformation.update)
    for place, (member, grad) in enumerate(zip(members, grads, strict=True)):
        one, state = update(grad, transformation.init(member), member)
        # A batched product rounds in another order, which a polar factor amplifies where a matrix is small.
        assert_close(jax.tree.map(lambda leaf, place=place: leaf[place], updates), one, 1e-4)
        assert int(states.skipped[place]) == int(state.skipped) == (place == 1)


@settings(max_examples=6, deadline=None)
@given(saved_after=st.integers(0, 3), as_numpy=st.booleans())
def test_a_state_survives_a_round_trip(
    five_steps: tuple[Any, Callable[..., Any]],
    params: Tree,
    history: list[Tree],
    alone: tuple[Tree, Any],
    saved_after: int,
    as_numpy: bool,
) -> None:
    transformation, advance = five_steps
    state = transformation.init(params)
    for step, grads in enumerate([*history, None]):
        if step == saved_after:
            leaves, structure = jax.tree.flatten((params, state))
            saved = [np.asarray(leaf) for leaf in leaves] if as_numpy else list(leaves)
            params, state = jax.tree.unflatten(structure, saved)
        if grads is not None:
            params, state = advance(params, state, grads)
    assert_close(params, alone[0], 0)
    assert_close(state, alone[1], 0)


LARGE = {
    "one": (300, 64),
    "two": (300, 64),
    "token.embedding": (300, 64),
    "odd": (19_207,),
    "small": (40,),
    "scalar": (),
}


def trained(transformation: Any) -> Callable[..., Any]:
    def advance(params: Tree, state: Any, grads: Tree) -> tuple[Tree, Any]:
        updates, state = transformation.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return advance


def test_buffers_can_be_donated(optax_package: ModuleType) -> None:
    transformation = optax_package.mnemosyne(block_size=4096)
    params = arrays(LARGE, 0)
    state = transformation.init(params)
    old = jax.tree.leaves((params, state))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advance = jax.jit(trained(transformation), donate_argnums=(0, 1))
        params, state = advance(params, state, arrays(LARGE, 1))
        advance(params, state, arrays(LARGE, 2))
    assert all(leaf.is_deleted() for leaf in old)


@pytest.mark.parametrize(
    "shape", [(524_293,), *(pytest.param(shape, marks=pytest.mark.slow) for shape in [(1024, 512), (700, 751)])]
)
def test_the_workspace_is_a_block_and_not_a_tensor(optax_package: ModuleType, shape: tuple[int, ...]) -> None:
    transformation = optax_package.mnemosyne(block_size=8192)
    params = [jax.ShapeDtypeStruct(shape, np.float32)]
    state = jax.eval_shape(transformation.init, params)

    def workspace(function: Callable[..., Any], *arguments: Any) -> int:
        compiled = jax.jit(function, donate_argnums=(0, 1)).lower(*arguments).compile()
        analysis: Any = compiled.memory_analysis()
        assert analysis.alias_size_in_bytes > 0.99 * analysis.output_size_in_bytes
        return analysis.temp_size_in_bytes

    tensor, block = 4 * int(np.prod(shape)), 4 * 8192
    assert workspace(transformation.update, params, state, params) < 30 * block < tensor
    # A step that is applied holds the updates besides.
    assert workspace(trained(transformation), params, state, params) < tensor + 30 * block


def test_equal_shapes_are_compiled_together(optax_package: ModuleType) -> None:
    def loops(count: int) -> int:
        transformation = optax_package.mnemosyne(block_size=65536)
        params = [jax.ShapeDtypeStruct((512, 256), np.float32)] * count
        state = jax.eval_shape(transformation.init, params)
        return jax.jit(transformation.update).lower(params, state, params).as_text().count("stablehlo.while")

    assert loops(4) == loops(1)


def refused(optax_package: ModuleType, message: str, params: Tree, grads: Tree, state: Any = None) -> None:
    transformation = optax_package.mnemosyne()
    with pytest.raises(ValueError, match=message) as caught:
        transformation.update(grads, transformation.init(params) if state is None else state, params)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_trained_is_named(optax_package: ModuleType) -> None:
    params = {"head": {"weight": jnp.ones((2, 3)), "steps": jnp.zeros(4, jnp.int32)}}
    message = r"the parameter \['head'\]\['steps'\] has dtype int32 .*; leave it out, or mask it with optax.masked"
    with pytest.raises(ValueError, match=message):
        optax_package.mnemosyne().init(params)
    with pytest.raises(ValueError, match=r"the parameter \(the only one\) has dtype bool"):
        optax_package.mnemosyne().init(jnp.ones(3, bool))


def test_gradients_of_another_tree_or_shape_are_refused(optax_package: ModuleType, params: Tree) -> None:
    missing = {"a": params["a"], "b": {"c": params["b"]["c"]}}
    refused(optax_package, r"the gradients are a tree without \['b'\]\['d'\] that is not", params, missing)
    refused(optax_package, r"the gradients are a tree with \['e'\] that is not", params, {**params, "e": params["a"]})
    refused(optax_package, "the gradients are a tree that is not", [params["a"]], (params["a"],))
    turned = {"a": params["a"], "b": {"c": params["b"]["c"].T, "d": params["b"]["d"]}}
    message = r"the gradients have shape \(6, 5\) at \['b'\]\['c'\] where \(5, 6\) belongs"
    refused(optax_package, message, params, turned)


def test_a_state_of_something_else_is_refused(optax_package: ModuleType, params: Tree) -> None:
    state = optax_package.mnemosyne().init(params)
    for other, message in (
        (optax.adam(0.1).init(params), "the state is a tuple and not one that init of small-cell gave"),
        (state._replace(memory={"first": params}), "of another cell or of other parameters: it has memory first"),
        (
            state._replace(recall={}),
            "and recall without arrays where small-cell has memory fast, slow, square and recall",
        ),
        (
            optax_package.mnemosyne().init(params["b"]),
            r"recall age \(2,\), .* has .* age \(3,\), .*; make one with init",
        ),
        (
            state._replace(memory={name: {"a": jnp.ones(7)} for name in state.memory}),
            r"the state's memory 'fast' are a tree without \['b'\]\['c'\]",
        ),
    ):
        refused(optax_package, message, params, params, other)


@pytest.mark.parametrize("value", [-0.5, np.float32(-1), float("nan"), np.float64("inf")])
@pytest.mark.parametrize("name", ["lr", "weight_decay"])
def test_rates_that_make_no_sense_are_refused(optax_package: ModuleType, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a finite number of at least 0, not"):
        optax_package.mnemosyne(**{name: value})
