"""A training on a rung is that of the optimizer alone, whatever is data of its program."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array

from mnemo_compile.cell import cell_config
from mnemo_compile.meta.evaluation._cell_optimizer import as_optax
from mnemo_compile.meta.evaluation._training import BINS
from mnemo_compile.meta.evaluation.ladder import Ladder, Options, Rung
from mnemo_compile.meta.evaluation.ladder._optimizers import axes_of_muon, BASELINES, MUON_ADAMW, of_cell
from mnemo_compile.meta.evaluation.ladder._start import fingerprint, start
from mnemo_compile.meta.evaluation.ladder._training import as_runs, Trainer
from mnemo_compile.meta.tasks import Tensor

ADAM = cell_config({"kind": "adam"}).build()


def with_options(rung: Rung, **options: Any) -> Rung:
    return rung.model_copy(update={"options": Options(**options)})


def trained(rung: Rung, parts: Sequence[tuple[optax.GradientTransformation, int]]) -> np.ndarray:
    """The curve of a training with one optimizer after another, which share their state."""
    family, at = rung.family.build(), start(rung)
    params, losses, state, step = at.params(), [], parts[0][0].init(at.params()), 0
    for optimizer, steps in parts:
        optimizer = optax.with_extra_args_support(optimizer)

        @jax.jit
        def one(params: list[Array], state: Any, number: Array) -> Any:
            batch = family.batch(at.instance, jax.random.fold_in(at.key, number), "train")
            loss, grads = jax.value_and_grad(family.loss)(params, batch)
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state, loss

        for _ in range(steps):
            params, state, loss = one(params, state, jnp.int32(step))
            losses.append(float(loss))
            step += 1
    return np.array(losses).reshape(BINS, -1).mean(axis=1)


def test_multipliers_and_horizons_are_data(ladder: Ladder) -> None:
    rung = ladder.rungs[1]
    trainer = Trainer(rung, of_cell(ADAM, "adam", (0.5, 4.0)))
    for multiplier in (0.5, 4.0):
        run = trainer.run(multiplier)
        expected = trained(rung, [(as_optax(ADAM, 100, lr=multiplier), 100)])
        np.testing.assert_allclose(np.array(run.curve, float), expected, rtol=1e-3)
        assert run.initial == pytest.approx(expected[0]) and run.seconds >= 0


def test_the_cell_may_not_know_its_horizon(ladder: Ladder) -> None:
    cell, rung = of_cell(ADAM, "adam", (1.0,)), ladder.rungs[1]
    unknown = Trainer(with_options(rung, horizon="unknown"), cell).run(1.0)
    np.testing.assert_allclose(np.array(unknown.curve, float), trained(rung, [(as_optax(ADAM, 0), 100)]), rtol=1e-3)
    extended = Trainer(with_options(rung, horizon="extended"), cell).run(1.0)
    expected = trained(rung, [(as_optax(ADAM, 50), 50), (as_optax(ADAM, 100), 50)])
    np.testing.assert_allclose(np.array(extended.curve, float), expected, rtol=1e-3)


def test_a_frozen_tensor_stays_until_half_of_the_steps(ladder: Ladder) -> None:
    rung = with_options(ladder.rungs[1], unfreezes=0)
    trainer = Trainer(rung, BASELINES["adamw"])
    data = trainer._data(1e-2)
    carry = trainer._fresh(data)
    first = [np.asarray(param) for param in carry.params]
    advance = jax.jit(trainer._advance)
    for segment in range(10):
        moved = [bool(np.any(np.asarray(param) != before)) for param, before in zip(carry.params, first, strict=True)]
        assert moved[0] == (segment > 5) and all(moved[1:]) == (segment > 0)
        carry, _ = advance(carry, data)


def test_gradients_of_a_cell_are_clipped_where_the_rung_says_so(ladder: Ladder) -> None:
    cell, rung = of_cell(ADAM, "adam", (1.0,)), ladder.rungs[1]
    clipped = Trainer(with_options(rung, clips=True), cell).run(1.0)
    parts = [(optax.chain(optax.clip_by_global_norm(1.0), as_optax(ADAM, 100)), 100)]
    np.testing.assert_allclose(np.array(clipped.curve, float), trained(rung, parts), rtol=1e-3)


def test_adamw_is_that_of_optax(ladder: Ladder) -> None:
    rung, rate = ladder.rungs[1], 1e-2
    schedule = optax.join_schedules(
        [lambda count: rate * (count + 1) / 5 * cosine(count), lambda count: rate * cosine(count + 4)], [4]
    )

    def cosine(count: Any) -> Any:
        return 0.5 * (1 + jnp.cos(jnp.pi * count / 100))

    adamw = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.1))
    run = Trainer(rung, BASELINES["adamw"]).run(rate)
    np.testing.assert_allclose(np.array(run.curve, float), trained(rung, [(adamw, 100)]), rtol=2e-3)


@pytest.mark.parametrize(
    ("name", "shape", "is_matrix"),
    [
        ("token_embedding.weight", (256, 64), False),
        ("position_embedding", (16, 64), False),
        ("head.weight", (64, 256), False),
        ("blocks.0.attention.qkv.weight", (64, 192), True),
        ("blocks.0.attention.qkv.bias", (192,), False),
        ("stages.0.conv.kernel", (3, 3, 1, 16), True),
    ],
)
def test_muon_tells_matrices_by_their_names(name: str, shape: tuple[int, ...], is_matrix: bool) -> None:
    axes = axes_of_muon(Tensor(shape, 1.0, name=name))
    assert (axes is not None) == is_matrix
    if axes is not None:
        assert axes.output_axis == len(shape) - 1


def test_muon_leaves_the_embedding_to_adamw() -> None:
    tensors = [Tensor((6, 4), 1.0, name="token_embedding.weight"), Tensor((4, 4), 1.0, name="body.weight")]
    random = np.random.default_rng(0)
    params, grads = ([jnp.asarray(random.normal(size=t.shape), jnp.float32) for t in tensors] for _ in range(2))
    grads[1] = jnp.asarray(np.linalg.qr(np.asarray(grads[1]))[0])
    rate, steps = jnp.float32(0.1), jnp.int32(10)

    def first(made: Any) -> list[np.ndarray]:
        return [np.asarray(update) for update in made.update(grads, made.init(params), params)[0]]

    # The first of ten steps has the whole rate. Optax gives Muon's AdamW Nesterov's momentum.
    by_adamw = optax.adamw(MUON_ADAMW * 0.1, weight_decay=0.1, nesterov=True)
    adamw = first(optax.chain(optax.clip_by_global_norm(1.0), by_adamw))
    muon = first(BASELINES["muon"].make(None, tensors, rate, steps))
    np.testing.assert_allclose(muon[0], adamw[0], rtol=1e-5)
    assert np.abs(muon[1] - adamw[1]).max() > 1e-3
    # The direction is orthogonal, but for what five steps leave, and for weight decay.
    direction = (muon[1] + 0.1 * 0.1 * np.asarray(params[1])) / 0.1
    assert np.all(np.abs(np.linalg.svd(direction)[1] - 1) < 0.4)


def test_every_text_of_the_networks_names_the_tensors_of_adamw(ladder: Ladder) -> None:
    text = ladder.rungs[2]
    of_adamw = {tensor.name for tensor in text.family.build().tensors if axes_of_muon(tensor) is None}
    assert {"token_embedding.weight", "position_embedding.weight", "head.weight"} <= of_adamw
    assert all(tensor.name for tensor in text.family.build().tensors)


def test_the_start_is_that_of_the_seed(ladder: Ladder) -> None:
    rung = ladder.rungs[1]
    for one, two in zip(start(rung).params(), start(rung).params(), strict=True):
        np.testing.assert_array_equal(one, two)
    other = start(rung.model_copy(update={"seed": 77})).params()
    assert np.any(np.asarray(other[0]) != np.asarray(start(rung).params()[0]))
    for param, tensor in zip(start(rung).params(), rung.family.build().tensors, strict=True):
        assert param.shape == tensor.shape and (tensor.deviation > 0) == bool(np.std(np.asarray(param)) > 0)


def test_the_fingerprint_sees_data_network_loss_and_seed(ladder: Ladder) -> None:
    rung = ladder.rungs[1]
    now = fingerprint(rung)
    assert fingerprint(rung.model_copy(update={"half": "choose"})).agrees_with(now)

    def changed(**update: Any) -> Rung:
        family = rung.family.model_copy(update=update)
        return rung.model_copy(update={"task": rung.task.model_copy(update={"family": family})})

    others = [changed(loss="focal"), changed(initialisation="fixed"), rung.model_copy(update={"seed": 78})]
    assert not any(fingerprint(other).agrees_with(now) for other in others)


def test_a_training_without_numbers_has_diverged(ladder: Ladder) -> None:
    run = Trainer(ladder.rungs[1], BASELINES["adamw"]).run(1e30)
    assert as_runs([run]).diverged[0] and run.highest is None


def test_the_identity_of_a_cell_sees_what_it_computes() -> None:
    other = cell_config({"kind": "adam", "beta1": 0.8}).build()
    identities = [of_cell(cell, "same", (1.0,)).identity for cell in (ADAM, ADAM, other)]
    assert identities[0] == identities[1] != identities[2]
