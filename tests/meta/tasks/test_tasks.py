"""Families of tasks: what they say of themselves holds, and each can be learned."""

import itertools
from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pydantic
import pytest

from mnemo_compile.meta.tasks import AbstractFamily, Batch, FamilyConfig, Params, PARTS

DIGITS, TEACHER, CLUSTERS = {"kind": "digits"}, {"kind": "teacher"}, {"kind": "clusters"}
TEXT, MASKED = {"kind": "markov", "symbols": 12}, {"kind": "markov", "symbols": 12, "masked": 0.3}
FAMILIES: list[dict[str, Any]] = [
    {"network": {"kind": "mlp", "widths": [16]}, "data": DIGITS},
    {"network": {"kind": "mlp", "widths": [16, 16], "activation": "tanh", "normalisation": "layer"}, "data": CLUSTERS},
    {"network": {"kind": "mlp", "widths": [24], "normalisation": "rms"}, "data": {"kind": "wine"}, "batch": 8},
    {"network": {"kind": "mlp", "widths": [], "activation": "relu"}, "data": {"kind": "iris"}, "loss": "focal"},
    {"network": {"kind": "mlp", "widths": [8]}, "data": {"kind": "breast_cancer", "permuted_inputs": True}},
    {"network": {"kind": "mlp", "widths": [32], "activation": "silu"}, "data": TEACHER},
    {"network": {"kind": "mlp", "widths": [16]}, "data": {"kind": "diabetes"}, "loss": "huber"},
    {"network": {"kind": "mlp", "widths": [8]}, "data": DIGITS, "reconstructs": True},
    {"network": {"kind": "mlp", "widths": [16]}, "data": CLUSTERS, "label_noise": 0.3, "batch": 128},
    {"network": {"kind": "conv", "channels": [8, 8]}, "data": DIGITS},
    {"network": {"kind": "conv", "channels": [8], "residual_blocks": 1}, "data": DIGITS},
    {"network": {"kind": "vit", "width": 16}, "data": DIGITS},
    {"network": {"kind": "mixer", "width": 16}, "data": DIGITS},
    {"network": {"kind": "transformer", "width": 16}, "data": TEXT},
    {"network": {"kind": "transformer", "width": 16, "causal": False}, "data": MASKED},
    {"network": {"kind": "recurrent", "width": 16}, "data": TEXT},
    {"network": {"kind": "recurrent", "width": 16, "gates": False}, "data": {**TEXT, "order": 2}},
    {"kind": "quadratic", "dimension": 12, "condition": 30},
    {"kind": "quadratic", "dimension": 12, "condition": 30, "rotated": False, "noise": 0},
    {"network": {"kind": "mlp", "widths": [32]}, "data": {"kind": "parity", "dimension": 8, "counted": 2}},
    {"network": {"kind": "transformer", "width": 16}, "data": {"kind": "modular", "modulus": 5}},
    {
        "network": {"kind": "transformer", "width": 16, "causal": False},
        "data": {"kind": "rearranged", "symbols": 6, "places": 5},
    },
    {"network": {"kind": "mlp", "widths": [64]}, "data": {"kind": "signals"}},
    {"network": {"kind": "conv", "channels": [8, 16]}, "data": {"kind": "shapes", "side": 8}},
    {"network": {"kind": "conv", "channels": [8, 16]}, "data": {"kind": "shapes", "labels": "place"}},
    {"network": {"kind": "transformer", "width": 16}, "data": {"kind": "source", "places": 12}},
    {"network": {"kind": "transformer", "width": 16, "causal": False}, "data": {"kind": "source", "masked": 0.2}},
    {"network": {"kind": "mlp", "widths": [32]}, "data": {"kind": "patches"}, "batch": 32},
    {"network": {"kind": "mlp", "widths": [32]}, "data": {"kind": "patches", "hides": False}, "reconstructs": True},
    {"network": {"kind": "mlp", "widths": [8]}, "data": {"kind": "breast_cancer"}, "loss": "hinge"},
    {"network": {"kind": "mlp", "widths": [16]}, "data": {"kind": "diabetes"}, "loss": "absolute"},
]
CONFIG: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(FamilyConfig)


def family_of(data: dict[str, Any]) -> AbstractFamily:
    return CONFIG.validate_python(data).build()


def start(family: AbstractFamily, key: jax.Array) -> Params:
    keys = jax.random.split(key, len(family.tensors))
    return [t.mean + t.deviation * jax.random.normal(k, t.shape) for t, k in zip(family.tensors, keys, strict=True)]


QUICK = (0, 2, 5, 7, 9, 14, 17, 19, 29)
"""Of every kind of network, data and loss something."""


each_family = pytest.mark.parametrize(
    "data",
    [pytest.param(data, marks=() if place in QUICK else pytest.mark.slow) for place, data in enumerate(FAMILIES)],
    ids=lambda data: family_of(data).name,
)


@each_family
def test_a_family_can_be_learned_and_draws_the_same_for_the_same_key(data: dict[str, Any]) -> None:
    family = family_of(data)
    keys = jax.random.split(jax.random.key(3), 4)
    instance = family.draw(keys[0])
    batch_of = jax.jit(lambda instance, key, part: family.batch(instance, key, part), static_argnums=2)
    params = start(family, keys[1])
    optimizer = optax.adam(3e-2 if data.get("kind") == "quadratic" else 1e-2)

    @jax.jit
    def step(params: Params, state: Any, key: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(family.loss)(params, family.batch(instance, key, "train"))
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    mean_loss = jax.jit(lambda params, batch: family.loss(params, batch))

    def loss_of(params: Params, part: Any) -> float:
        draws = [batch_of(instance, key, part) for key in jax.random.split(keys[2], 8)]
        return float(np.mean([mean_loss(params, batch) for batch in draws]))

    before = {part: loss_of(params, part) for part in PARTS}
    assert len({round(loss, 6) for loss in before.values()}) > 1 or "quadratic" in family.name
    state = optimizer.init(params)
    for key in jax.random.split(keys[3], 150):
        params, state, loss = step(params, state, key)
        assert bool(jnp.isfinite(loss))
    assert loss_of(params, "judge") < 0.95 * before["judge"], "what is learned holds for what was not trained on"

    batch, again, other = (batch_of(instance, key, "train") for key in (keys[0], keys[0], keys[1]))
    for a, b, c in zip(*map(jax.tree.leaves, (batch, again, other)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.shape == c.shape
    pairs = zip(jax.tree.leaves(batch), jax.tree.leaves(other), strict=True)
    assert any(bool(jnp.any(a != c)) for a, c in pairs) != (data.get("noise") == 0)
    accuracy = float(family.accuracy(params, family.batch(instance, keys[0], "held_out")))
    assert np.isnan(accuracy) or 0 <= accuracy <= 1


def test_names_tell_families_apart() -> None:
    names = [family_of(data).name for data in FAMILIES]
    assert len(set(names)) == len(names)


@each_family
def test_tasks_of_a_family_differ(data: dict[str, Any]) -> None:
    family, key = family_of(data), jax.random.key(0)
    draw = jax.jit(lambda k: family.batch(family.draw(k), key, "train"))
    one, *others = (jax.tree.leaves(draw(jax.random.key(seed))) for seed in range(3))
    pairs = [pair for other in others for pair in zip(one, other, strict=True)]
    # Of a table of numbers and of a text there is one.
    is_one = data.get("data", {}).get("kind") in ("diabetes", "source") or data.get("reconstructs", False)
    assert is_one or any(bool(jnp.any(a != b)) for a, b in pairs)


def test_label_noise_is_in_all_but_what_is_held_out() -> None:
    noisy = family_of({**FAMILIES[8], "label_noise": 0.5})
    clean = family_of({**FAMILIES[8], "label_noise": 0.0})
    instance, key = noisy.draw(jax.random.key(0)), jax.random.key(1)
    pairs = {part: (noisy.batch(instance, key, part), clean.batch(instance, key, part)) for part in PARTS}
    for part in ("train", "judge"):
        share = float(jnp.mean(pairs[part][0].targets != pairs[part][1].targets))
        assert 0.3 < share < 0.55
    np.testing.assert_array_equal(pairs["held_out"][0].targets, pairs["held_out"][1].targets)


LOSSES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "squared": lambda out, target: float(np.mean((out - target) ** 2) / 2),
    "absolute": lambda out, target: float(np.mean(np.abs(out - target))),
    "huber": lambda out, target: float(
        np.mean([d * d / 2 if d < 1 else d - 0.5 for d in np.abs(out - target).ravel()])
    ),
    "cross-entropy": lambda out, label: float(np.mean(-np.log(likelihoods(out, label)))),
    "focal": lambda out, label: float(np.mean(-((1 - likelihoods(out, label)) ** 2) * np.log(likelihoods(out, label)))),
    "hinge": lambda out, label: float(
        np.mean([max(0.0, 1 + np.delete(row, y).max() - row[y]) for row, y in zip(out, label, strict=True)])
    ),
}


def likelihoods(scores: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Of the labels, where classes have these scores."""
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True))[np.arange(len(label)), label]


@hypothesis.given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([0.1, 1.0, 10.0]))
@hypothesis.settings(max_examples=15, deadline=None)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_its_formula(loss: str, seed: int, size: float) -> None:
    of_numbers = loss in ("squared", "absolute", "huber")
    data = {"kind": "diabetes"} if of_numbers else {"kind": "wine"}
    family = family_of({"network": {"kind": "mlp", "widths": []}, "data": data, "loss": loss})
    random = np.random.default_rng(seed)
    params = [jnp.asarray(size * random.normal(size=tensor.shape), jnp.float32) for tensor in family.tensors]
    batch = family.batch(family.draw(jax.random.key(seed)), jax.random.key(1), "train")
    outputs = family.network(params, batch.inputs)  # pyright: ignore[reportAttributeAccessIssue]
    expected = LOSSES[loss](np.asarray(outputs, np.float64), np.asarray(batch.targets))
    np.testing.assert_allclose(family.loss(params, batch), expected, rtol=1e-3, atol=1e-6)


def told_rightly(batch: Batch, known: Batch) -> float:
    """The share of examples whose nearest neighbour among the known ones has their label."""
    flat, others = (np.asarray(each.inputs).reshape(len(each.targets), -1) for each in (known, batch))
    nearest = ((flat**2).sum(axis=1) - 2 * others @ flat.T).argmin(axis=1)
    return float(np.mean(np.asarray(known.targets)[nearest] == np.asarray(batch.targets)))


def test_a_signal_is_its_classes_template_and_a_figure_is_where_its_label_says() -> None:
    """Without noise the nearest neighbour among many others has the same label, and in another task it has not."""
    for data in ({"kind": "signals", "noise": 0}, {"kind": "shapes", "labels": "place", "noise": 0}):
        family = family_of({"network": {"kind": "mlp", "widths": []}, "data": data, "batch": 1024})
        instance = family.draw(jax.random.key(0))
        train = family.batch(instance, jax.random.key(1), "train")
        judge, of_another = (
            family.batch(each, jax.random.key(1), "judge") for each in (instance, family.draw(jax.random.key(5)))
        )
        assert told_rightly(judge, train) > 0.7, data
        assert told_rightly(of_another, train) < 0.5, data
        assert set(np.asarray(train.targets).tolist()) == set(range(10))


def test_a_hidden_middle_is_what_is_to_be_told() -> None:
    hidden = family_of({**FAMILIES[27], "batch": 16})
    whole = family_of({"network": {"kind": "mlp", "widths": []}, "data": {"kind": "patches", "hides": False}})
    instance, key = hidden.draw(jax.random.key(0)), jax.random.key(1)
    batch, seen = (np.asarray(x) for x in hidden.batch(instance, key, "train")[:2])
    shown = np.array(whole.data.batch(instance, key, "train", 16).inputs)  # pyright: ignore[reportAttributeAccessIssue]
    assert not batch[:, 3:5, 3:5].any()
    np.testing.assert_array_equal(shown[:, 3:5, 3:5].reshape(16, -1), seen)
    shown[:, 3:5, 3:5] = 0
    np.testing.assert_array_equal(shown, batch)


def test_text_is_the_standard_librarys_and_its_parts_are_of_other_modules() -> None:
    family = family_of({**FAMILIES[25], "batch": 64})
    batch = family.batch((), jax.random.key(1), "train")
    np.testing.assert_array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    texts = {part: np.asarray(text) for part, text in family.data.text.items()}  # pyright: ignore[reportAttributeAccessIssue]
    size = 300
    windows = {
        part: {text[place : place + size].tobytes() for place in range(0, len(text) - size, size)}
        for part, text in texts.items()
    }
    assert all(len(found) > 50 for found in windows.values())
    for one, two in itertools.permutations(PARTS, 2):
        whole, some = texts[two].tobytes(), sorted(windows[one])[:50]
        # But for what modules have in common, such as a licence.
        assert sum(window in whole for window in some) <= 5, (one, two)


def test_one_set_of_signs_explains_all_parities() -> None:
    family = family_of({**FAMILIES[19], "batch": 256})
    instance, explained = family.draw(jax.random.key(0)), []
    for part in PARTS:
        batch = family.batch(instance, jax.random.key(1), part)
        signs, told = np.asarray(batch.inputs), np.asarray(batch.targets)
        sets = itertools.combinations(range(8), 2)
        explained.append([each for each in sets if ((signs[:, each].prod(axis=1) < 0) == told).all()])
    assert len(explained[0]) == 1 and explained[1] == explained[2] == explained[0]


def test_each_rearranged_symbol_comes_from_one_place_and_every_place_is_told() -> None:
    family = family_of({**FAMILIES[21], "batch": 256})
    instance = family.draw(jax.random.key(0))
    for part in PARTS:
        batch = family.batch(instance, jax.random.key(1), part)
        told, shown = np.asarray(batch.targets), np.asarray(batch.inputs)
        is_from = (told[:, :, None] == shown[:, None, :]).all(axis=0)
        np.testing.assert_array_equal(is_from.sum(axis=0), 1)
        np.testing.assert_array_equal(is_from.sum(axis=1), 1)


def test_hidden_symbols_are_the_ones_that_count() -> None:
    family = family_of({**FAMILIES[14], "batch": 512})
    batch = family.batch(family.draw(jax.random.key(0)), jax.random.key(1), "train")
    is_hidden = np.asarray(batch.inputs == 12)
    assert batch.weight is not None
    np.testing.assert_array_equal(np.asarray(batch.weight) > 0, is_hidden)
    assert abs(is_hidden.mean() - 0.3) < 0.03
    np.testing.assert_array_equal(np.asarray(batch.inputs)[~is_hidden], np.asarray(batch.targets)[~is_hidden])


def test_a_decoder_sees_nothing_of_what_comes() -> None:
    for place in (13, 15):
        family = family_of(FAMILIES[place])
        params = start(family, jax.random.key(0))
        inputs = family.batch(family.draw(jax.random.key(1)), jax.random.key(2), "train").inputs
        changed = inputs.at[:, 9:].set((inputs[:, 9:] + 1) % 12)
        one, two = (family.network(params, x) for x in (inputs, changed))  # pyright: ignore[reportAttributeAccessIssue]
        np.testing.assert_allclose(one[:, :9], two[:, :9], atol=1e-5)
        assert float(jnp.abs(one[:, 9:] - two[:, 9:]).max()) > 1e-3


def test_a_quadratic_has_the_spectrum_that_it_says() -> None:
    for rotated in (True, False):
        config = {"kind": "quadratic", "dimension": 8, "condition": 100, "rotated": rotated, "noise": 0}
        family = family_of(config)
        batch = family.batch(family.draw(jax.random.key(0)), jax.random.key(1), "train")
        hessian = 8 * jax.hessian(lambda x: family.loss([x], batch))(jnp.zeros(8))
        np.testing.assert_allclose(np.linalg.eigvalsh(hessian), np.geomspace(0.01, 1, 8), rtol=1e-3)
        assert (np.abs(np.asarray(hessian) - np.diag(np.diag(hessian))).max() > 0.05) == rotated


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": TEXT}, "network 'mlp' cannot read data 'markov'"),
        ({"network": {"kind": "vit", "width": 8}, "data": TEACHER}, "needs images"),
        ({"network": {"kind": "vit", "width": 7}}, "heads = 2 must divide width = 7"),
        ({"loss": "squared"}, "loss = 'squared' does not fit targets that are classes"),
        ({"reconstructs": True, "loss": "focal"}, "loss = 'focal' does not fit targets that are numbers"),
        ({"network": {"kind": "conv", "channels": [4]}, "reconstructs": True}, "needs a network of numbers"),
        ({"batch": 0}, "greater than or equal to 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said.replace("(", r"\(")):
        CONFIG.validate_python({**FAMILIES[0], **changes})


def test_parts_of_a_bundled_set_share_no_row() -> None:
    data = family_of(FAMILIES[0]).data  # pyright: ignore[reportAttributeAccessIssue]
    rows = {part: {bytes(np.asarray(row)) for row in data.rows[part][0]} for part in PARTS}
    for one, two in itertools.combinations(PARTS, 2):
        assert len(rows[one] & rows[two]) <= 3, "but for images that are in the set twice"
