"""The training loop: parameters, gradients and the optimizer's state stay divided over the devices."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import click
import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from safetensors.numpy import save_file

import mnemo_compile as mnemo

from ._options import Settings
from ._run import begin, Checkpoints, draw, Metrics
from ._sharding import place, sharding_of

Batch = dict[str, Any]
"""Arrays whose first axis are examples."""


@dataclass(frozen=True)
class Recipe:
    """What is trained, and on what."""

    params: Any
    """The tree of arrays that are trained, each in its sharding."""
    frozen: Any
    """A tree that the loss also needs, each array in its sharding."""
    loss: Callable[[Any, Any, Batch], tuple[jax.Array, jax.Array]]
    """Of the parameters, what is frozen, and a batch: mean loss and accuracy."""
    training: Batch
    validation: Batch


def make_optimizer(name: str, steps: int) -> optax.GradientTransformation:
    """A model of the zoo by its name, or AdamW at a rate with warm-up and cosine: `adamw:3e-4`."""
    kind, _, rate = name.partition(":")
    if kind == "adamw":
        try:
            peak = float(rate)
        except ValueError:
            raise click.UsageError(f"--optimizer {name} needs a rate; write adamw:3e-4.") from None
        warm_up = max(1, round(0.05 * steps))
        schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warm_up, max(steps, warm_up + 1))
        return optax.adamw(schedule, weight_decay=0.01)
    if rate:
        raise click.UsageError(f"--optimizer {name}: only adamw has a rate; write {kind}.")
    return mnemo.to_optax(kind)(total_steps=steps, weight_decay=0.01)


def train(recipe: Recipe, settings: Settings, mesh: Mesh, options: dict[str, Any]) -> None:
    """Trains, and writes metrics, curves, checkpoints and the result."""
    _check_sizes(recipe, settings)
    transformation = make_optimizer(settings.optimizer, settings.steps)
    begin(settings, options)

    def in_place(array: jax.Array) -> NamedSharding:
        return array.sharding if isinstance(array.sharding, NamedSharding) else sharding_of(mesh, ())

    state = place((recipe.params, transformation.init(recipe.params)), in_place)
    checkpoints = Checkpoints(settings.out / "checkpoints")
    first = 0
    if settings.resume and (latest := checkpoints.latest()) is not None:
        first, state = latest, checkpoints.restore(state)
    advance, evaluate = _compiled(recipe, transformation, state)
    metrics = Metrics(settings.out / "metrics.jsonl", first)
    losses: list[jax.Array] = []
    for step, rows in enumerate(_batches(len_of(recipe.training), settings, first), start=first + 1):
        state, loss = advance(state, recipe.frozen, _rows(recipe.training, rows, mesh))
        losses.append(loss)
        is_last = step == settings.steps
        is_validated, is_saved = is_last or step % settings.eval_every == 0, is_last or step % settings.save_every == 0
        if is_validated or is_saved or len(losses) == 10:
            # To read a loss waits for the devices, so it is done rarely.
            for place_, value in enumerate(losses, start=step - len(losses) + 1):
                metrics.add(place_, loss=float(value))
            losses = []
        if is_validated:
            results = [
                evaluate(state[0], recipe.frozen, _rows(recipe.validation, part, mesh))
                for part in _whole_batches(len_of(recipe.validation), settings.batch)
            ]
            loss, accuracy = np.mean([[float(value) for value in result] for result in results], axis=0)
            metrics.add(step, validation_loss=loss, validation_accuracy=accuracy)
            of_all = f"step {step} of {settings.steps}"
            click.echo(f"{of_all}: validation loss {loss:.4f}, accuracy {accuracy:.1%}", err=True)
        if is_saved:
            checkpoints.save(step, state)
    checkpoints.close()
    draw(metrics.lines, settings.out / "curves.png")
    save_file(_by_name(state[0]), settings.out / "parameters.safetensors")
    click.echo(str(settings.out))


def len_of(batch: Batch) -> int:
    """The number of examples."""
    return len(next(iter(batch.values())))


def _check_sizes(recipe: Recipe, settings: Settings) -> None:
    least = min(len_of(recipe.training), len_of(recipe.validation))
    if settings.batch > least:
        raise click.UsageError(f"--batch {settings.batch} is more than the {least} examples; pass a smaller one.")


def _compiled(recipe: Recipe, transformation: optax.GradientTransformation, state: Any) -> tuple[Any, Any]:
    """A step, and the loss and accuracy of a batch."""

    def advance(state: Any, frozen: Any, batch: Batch) -> tuple[Any, jax.Array]:
        params, inner = state
        (loss, _), grads = jax.value_and_grad(recipe.loss, has_aux=True)(params, frozen, batch)
        updates, inner = transformation.update(grads, inner, params)
        return (optax.apply_updates(params, updates), inner), loss

    shardings = jax.tree.map(lambda array: array.sharding, state)
    return jax.jit(advance, donate_argnums=0, out_shardings=(shardings, None)), jax.jit(recipe.loss)


def _batches(count: int, settings: Settings, first: int) -> Iterator[np.ndarray]:
    """The places of the examples of each step after the first ones. They follow from the seed and the step alone."""
    per_epoch = count // settings.batch
    for step in range(first, settings.steps):
        epoch, start = divmod(step, per_epoch)
        order = np.random.default_rng((settings.seed, epoch)).permutation(count)
        yield order[start * settings.batch : (start + 1) * settings.batch]


def _whole_batches(count: int, batch: int) -> np.ndarray:
    """The places of the examples of all whole batches."""
    return np.arange(math.floor(count / batch) * batch).reshape(-1, batch)


def _rows(batch: Batch, places: np.ndarray, mesh: Mesh) -> Batch:
    return place({name: array[places] for name, array in batch.items()}, lambda array: sharding_of(mesh, array.shape))


def _by_name(tree: Any) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}
