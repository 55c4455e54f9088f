"""The optax export passes what optax checks of its own optimizers, and does what users expect of any of them."""

import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

Tree = Any
Make = Callable[..., Any]
TARGETS = ("_setup_parabola", "_setup_rosenbrock", "_setup_matrix_parabola", "_setup_mixed_tensor_target")
WRAPPERS: dict[str, dict[str, Any]] = {
    "mechanize": {"weight_decay": 0.0},
    "schedule_free": {"learning_rate": 1.0},
    "reduce_on_plateau": {},
}


@pytest.fixture(params=["prior", pytest.param("network", marks=pytest.mark.slow)])
def make(request: pytest.FixtureRequest, package_of: Callable[[str, str], ModuleType]) -> Make:
    return package_of("optax", request.param).mnemosyne


@pytest.fixture(scope="module")
def prior(package_of: Callable[[str, str], ModuleType]) -> Make:
    """The quicker of them to compile."""
    return package_of("optax", "prior").mnemosyne


# What optax itself checks, which comes with it


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a common check of optax with one of our transformations in the place of optax's own."""
    common = importlib.import_module("optax.contrib._common_test")

    def run(make: Make, name: str, wrapper: str | None = None, **arguments: Any) -> None:
        def mnemosyne(
            learning_rate: optax.ScalarOrSchedule = 1.0,
            weight_decay: float | jax.Array = 0.0,
            total_steps: int | jax.Array | None = None,
        ) -> Any:
            return make(learning_rate, weight_decay, total_steps)

        monkeypatch.setattr(optax.contrib, "mnemosyne", mnemosyne, raising=False)
        test = common.ContribTest(f"{name}0")
        function = inspect.unwrap(getattr(common.ContribTest, f"{name}0"))
        assert function.__name__ == name
        base = {"opt_name": "mnemosyne", "opt_kwargs": {}, "wrapper_name": wrapper}
        base["wrapper_kwargs"] = WRAPPERS[wrapper] if wrapper else None
        wanted = inspect.signature(function).parameters
        if "target" in arguments:
            arguments["target"] = getattr(common, arguments["target"])
        function(test, **{key: value for key, value in {**base, **arguments}.items() if key in wanted})

    return run


CHECKS: dict[str, list[dict[str, Any]]] = {
    "test_optimizers": [{"target": target, "dtype": "float32"} for target in TARGETS],
    "test_optimizers_accept_extra_args": [{"wrap": False}],
    "test_optimizers_can_be_wrapped_in_inject_hyperparams": [{}],
    "test_preserve_dtype": [{"dtype": "bfloat16"}, {"dtype": "float32"}],
    "test_gradient_accumulation": [{"dtype": "bfloat16"}, {"dtype": "float32"}],
    "test_state_shape_dtype_shard_stability": [
        {"dtype": dtype} for dtype in (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)
    ],
    "test_optimizers_accept_learning_rate_schedule_if_type_annotated_as_such": [{}],
}
"""The common checks of optax, and the arguments for each of their runs."""
QUICK = (
    ("test_optimizers", 1),
    ("test_optimizers_accept_extra_args", 0),
    ("test_preserve_dtype", 0),
)
RUNS = [
    pytest.param(
        name,
        arguments,
        id=f"{name.removeprefix('test_')}-{number}",
        marks=() if (name, number) in QUICK else pytest.mark.slow,
    )
    for name, runs in CHECKS.items()
    for number, arguments in enumerate(runs)
]


@pytest.mark.filterwarnings("ignore:lr is 0.001, and multiplies a step")
@pytest.mark.parametrize(("name", "arguments"), RUNS)
def test_a_common_check_of_optax_holds(
    make: Make, check: Callable[..., None], name: str, arguments: dict[str, Any]
) -> None:
    check(make, name, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_of_optax_find_the_minimum_too(
    prior: Make, check: Callable[..., None], wrapper: str, target: str
) -> None:
    check(prior, "test_optimizers", wrapper, target=target, dtype="float32")


def test_every_common_check_of_optax_is_run() -> None:
    common = importlib.import_module("optax.contrib._common_test")
    functions = [inspect.unwrap(value) for name, value in vars(common.ContribTest).items() if name.startswith("test_")]
    assert {function.__name__ for function in functions} == set(CHECKS)


# What cannot hold


def params() -> Tree:
    random = np.random.default_rng(0)
    shapes = {"bias": (7,), "kernel": (6, 5)}
    return {name: jnp.asarray(random.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def gradients(seed: int = 1) -> Tree:
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), params())


def complex_parameters(make: Make) -> None:
    make().init({"w": jnp.ones(3, jnp.complex64)})


def no_parameters(make: Make) -> None:
    transformation = make()
    transformation.update(gradients(), transformation.init(params()))


def an_injected_block_size(make: Make) -> None:
    optax.inject_hyperparams(make)(block_size=64).init(params())


def the_name_of_the_rate(make: Make) -> None:
    make(learning_rate=1.0)


def a_state_of_another_transformation(make: Make) -> None:
    make().update(gradients(), optax.adam(1.0).init(params()), params())


CANNOT: dict[str, tuple[Callable[[Make], None], type[Exception], str, str]] = {
    "complex parameters": (
        complex_parameters,
        ValueError,
        r"the parameter \['w'\] has dtype complex64 and only floating point can be trained",
        "A cell is a function of real numbers, and no cell was trained on pairs of them.",
    ),
    "updates without parameters": (
        no_parameters,
        ValueError,
        "mnemosyne needs the parameters",
        "Steps are relative to the size of a parameter.",
    ),
    "a block size that is injected": (
        an_injected_block_size,
        ValueError,
        "block_size must not be traced; name it in the static_args",
        "A block size is a shape, and shapes are known when a program is compiled.",
    ),
    "the rate of another optimizer": (
        lambda make: make(lr=1e-3),
        UserWarning,
        "lr is 0.001, and multiplies a step whose size is learned",
        "A factor of 0.001 is a mistake more often than a wish, so it warns.",
    ),
    "learning_rate": (
        the_name_of_the_rate,
        TypeError,
        "unexpected keyword argument 'learning_rate'",
        "It is named lr, because it multiplies a step whose size is learned, and 1e-3 would be a mistake.",
    ),
    "the state of another transformation": (
        a_state_of_another_transformation,
        ValueError,
        "the state is a tuple and not one that init of small-cell gave",
        "Memory of one update rule means nothing to another one.",
    ),
}
"""What optax's optimizers accept and this one does not: how it ends, and why."""


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_hold_is_refused_in_one_sentence(prior: Make, name: str) -> None:
    attempt, error, message, reason = CANNOT[name]
    assert reason.endswith(".")
    expected = pytest.warns(UserWarning, match=message) if error is UserWarning else pytest.raises(error, match=message)
    with expected as caught:
        attempt(prior)
    if isinstance(caught, pytest.ExceptionInfo):
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [jnp.complex64, jnp.int32, jnp.bool_])
def test_gradients_of_another_kind_than_their_parameters_are_refused(prior: Make, dtype: Any) -> None:
    transformation, param = prior(), {"w": jnp.ones(3)}
    with pytest.raises(ValueError, match=r"\['w'\]") as caught:
        jax.eval_shape(transformation.update, {"w": jnp.ones(3, dtype)}, transformation.init(param), param)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_flattened_tree_is_another_network(prior: Make) -> None:
    """A matrix moves by a polar factor, and a vector does not: `optax.flatten` keeps only vectors as they are."""
    plain: Any = prior()
    flat: Any = optax.flatten(prior())
    updates, _ = plain.update(gradients(), plain.init(params()), params())
    others, _ = flat.update(gradients(), flat.init(params()), params())
    assert np.abs(updates["kernel"] - others["kernel"]).max() > 1e-4
    bias, other = {"bias": params()["bias"]}, {"bias": gradients()["bias"]}
    alone, _ = plain.update(other, plain.init(bias), bias)
    flattened, _ = flat.update(other, flat.init(bias), bias)
    np.testing.assert_array_equal(alone["bias"], flattened["bias"])


# Transformations of JAX


def signature(tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def assert_close(left: Tree, right: Tree, bound: float = 1e-6) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert np.linalg.norm(x - y) <= bound * np.linalg.norm(y) + 1e-12


def run(transformation: Any, steps: int = 3, start: Tree = None, **extra: Any) -> tuple[Tree, Any]:
    """Parameters and state after some steps."""
    update = jax.jit(lambda grads, state, params: transformation.update(grads, state, params, **extra))
    held = params() if start is None else start
    state = transformation.init(held)
    for step in range(steps):
        updates, state = update(gradients(step), state, held)
        held = optax.apply_updates(held, updates)
    return held, state


@pytest.mark.slow
def test_compiled_and_eager_steps_are_the_same(make: Make) -> None:
    transformation = make(total_steps=5)
    state, jitted_state = transformation.init(params()), jax.jit(transformation.init)(params())
    assert_close(jitted_state, state, 0)
    for seed in range(2):
        updates, state = transformation.update(gradients(seed), state, params())
        jitted, jitted_state = jax.jit(transformation.update)(gradients(seed), jitted_state, params())
        assert_close(jitted, updates, 1e-5)
        assert_close(jitted_state, state, 1e-5)


def test_shapes_are_known_without_computing(make: Make) -> None:
    transformation = make()
    state = jax.eval_shape(transformation.init, params())
    assert signature(state) == signature(transformation.init(params()))
    updates, after = jax.eval_shape(transformation.update, gradients(), state, params())
    assert signature(updates) == signature(params()) and signature(after) == signature(state)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((updates, after)))


@pytest.mark.slow
def test_a_run_has_a_derivative_with_respect_to_the_rate(prior: Make) -> None:
    @jax.jit
    def loss(lr: jax.Array) -> jax.Array:
        held, transformation = params(), prior(lr=lr)
        state = transformation.init(held)
        for _ in range(2):
            updates, state = transformation.update(jax.tree.map(lambda leaf: 2 * leaf, held), state, held)
            held = optax.apply_updates(held, updates)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(held)) * jnp.float32(1)

    numeric = (loss(jnp.float32(1.05)) - loss(jnp.float32(0.95))) / 0.1
    derivative = jax.grad(loss)(jnp.float32(1))
    assert derivative < 0 and float(derivative) == pytest.approx(float(numeric), rel=1e-2)
    _, tangent = jax.jvp(loss, (jnp.float32(1),), (jnp.float32(1),))
    assert float(tangent) == pytest.approx(float(derivative), rel=1e-4)


@pytest.mark.slow
def test_a_step_can_be_a_loop_or_a_branch(prior: Make) -> None:
    transformation = prior()

    def body(step: Any, carry: Tree) -> Tree:
        def move(carry: Tree) -> Tree:
            updates, state = transformation.update(gradients(), carry[1], carry[0])
            return optax.apply_updates(carry[0], updates), state

        return jax.lax.cond(step % 2 == 0, move, lambda carry: carry, carry)

    _, state = jax.lax.fori_loop(0, 5, body, (params(), transformation.init(params())))
    assert int(state.step) == 3


# Wrappers and tools of optax


def test_states_can_be_searched_and_written_by_name(prior: Make) -> None:
    state = optax.chain(optax.clip_by_global_norm(1.0), prior()).init(params())
    assert int(optax.tree.get(state, "skipped")) == 0
    assert signature(optax.tree.get(state, "fast")) == signature(params())
    assert int(optax.tree.get(optax.tree.set(state, step=jnp.asarray(7)), "step")) == 7


def test_the_parts_of_a_state_that_are_like_parameters_can_be_mapped(prior: Make) -> None:
    """As for shardings. A slot that a matrix lacks is an empty array in its place."""
    transformation = prior()
    state = transformation.init(params())
    seen: list[tuple[int, ...]] = []
    mapped: Any = optax.tree.map_params(
        transformation, lambda leaf: (seen.append(leaf.shape), leaf + 1)[1], state, transform_non_params=lambda _: None
    )
    assert sorted(seen) == [(0,), (6, 5), (7,), (7,)]
    assert (np.asarray(mapped.memory["fast"]["kernel"]) == 1).all()
    assert mapped.step is None and set(mapped.recall.values()) == {None}


@pytest.mark.slow
def test_hyperparameters_are_in_the_state_and_may_follow_schedules(prior: Make) -> None:
    make = optax.inject_hyperparams(prior, static_args=("block_size",))
    schedule = optax.linear_schedule(1.0, 0.0, 2)
    result, state = run(make(lr=schedule, weight_decay=0.5))
    assert set(state.hyperparams) >= {"lr", "weight_decay"}
    assert float(state.hyperparams["weight_decay"]) == 0.5 and float(state.hyperparams["lr"]) == 0
    assert_close(result, run(prior(lr=schedule, weight_decay=0.5))[0])


@pytest.mark.slow
def test_slow_weights_follow_half_way(prior: Make) -> None:
    start = optax.LookaheadParams.init_synced(params())
    transformation = optax.lookahead(prior(), sync_period=2, slow_step_size=0.5)
    state = transformation.init(start)
    held: Any = start
    for seed in range(2):
        updates, state = transformation.update(gradients(seed), state, held)
        held = optax.apply_updates(held, updates)
    ahead, _ = run(prior(), steps=2)
    middle = jax.tree.map(lambda x, y: (x + y) / 2, ahead, params())
    assert_close(held.slow, middle, 1e-5)
    assert_close(held.fast, middle, 1e-5)


COMPOSED: dict[str, Callable[[Any], Any]] = {
    "named_chain": lambda ours: optax.named_chain(("clip", optax.clip(100.0)), ("ours", ours)),
    "snapshot": lambda ours: optax.chain(optax.snapshot("norm", lambda updates: optax.tree.norm(updates)), ours),
    "zero_nans": lambda ours: optax.chain(optax.zero_nans(), ours),
    "extra_args": lambda ours: optax.with_extra_args_support(ours),
    "clip_by_global_norm": lambda ours: optax.chain(optax.clip_by_global_norm(1e6), ours),
    "selective": lambda ours: optax.transforms.selective_transform(ours, freeze_mask={"bias": False, "kernel": False}),
}
"""Compositions that change nothing."""


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPOSED)
def test_a_composition_that_changes_nothing_changes_nothing(prior: Make, name: str) -> None:
    assert_close(run(COMPOSED[name](prior()))[0], run(prior())[0])


@pytest.mark.slow
def test_what_is_frozen_stays_and_the_rest_steps_as_if_alone(prior: Make) -> None:
    """In a cell without sums over the network."""
    frozen = optax.transforms.selective_transform(prior(), freeze_mask={"bias": True, "kernel": False})
    result, _ = run(frozen)
    np.testing.assert_array_equal(result["bias"], params()["bias"])
    assert_close({"kernel": result["kernel"]}, {"kernel": run(prior())[0]["kernel"]})


@pytest.mark.slow
def test_parameters_can_be_held_above_zero(prior: Make) -> None:
    start = jax.tree.map(lambda leaf: jnp.abs(leaf) * 1e-4, params())
    result, _ = run(optax.chain(prior(), optax.keep_params_nonnegative()), start=start)
    assert all((leaf >= 0).all() for leaf in jax.tree.leaves(result))
    assert any((leaf == 0).any() for leaf in jax.tree.leaves(result))


@pytest.mark.slow
def test_a_plateau_scales_what_it_gives(prior: Make) -> None:
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=1)
    result, state = run(optax.chain(prior(), plateau), steps=5, value=jnp.float32(1))
    assert float(optax.tree.get(state, "scale")) < 1
    moved = [optax.tree.norm(optax.tree.sub(each, params())) for each in (result, run(prior(), steps=5)[0])]
    assert 0 < moved[0] < moved[1]


@pytest.mark.slow
def test_sharpness_aware_steps_descend(prior: Make) -> None:
    transformation = optax.contrib.sam(prior(), optax.chain(optax.contrib.normalize(), optax.sgd(0.05)), sync_period=2)

    def loss(held: Tree) -> jax.Array:
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(held)) * jnp.float32(1)

    @jax.jit
    def advance(held: Tree, state: Any) -> Any:
        updates, state = transformation.update(jax.grad(loss)(held), state, held)
        return optax.apply_updates(held, updates), state

    held, state = params(), transformation.init(params())
    for _ in range(60):
        held, state = advance(held, state)
    assert loss(held) < 0.8 * loss(params())


def test_trees_may_be_empty_or_hold_numpy_arrays(prior: Make) -> None:
    transformation = prior()
    assert transformation.update({}, transformation.init({}), {})[0] == {}
    empty = {"a": jnp.zeros((0, 3))}
    updates, _ = transformation.update(empty, transformation.init(empty), empty)
    assert updates["a"].shape == (0, 3)
    param = {"a": np.arange(5, dtype=np.float32)}
    update = jax.jit(transformation.update)
    ours, _ = update(param, transformation.init(param), param)
    theirs, _ = update(jax.tree.map(jnp.asarray, param), transformation.init(param), jax.tree.map(jnp.asarray, param))
    np.testing.assert_array_equal(ours["a"], theirs["a"])
