"""Fine-tuning of a whole Vision Transformer in JAX, with parameters divided over all devices.

    python -m examples.finetune_vit_jax                                       # a small network, made on the spot
    python -m examples.finetune_vit_jax --model FOLDER --steps 2000           # a ViT saved by transformers
    python -m examples.finetune_vit_jax --model vit-huge --remat --data images.npz

By default the images are scikit-learn's digits. A file of images is an archive of NumPy with `images` (count, height,
width, 3) of bytes and `labels` (count). Every image is scaled to the network's size, and its bytes to -1 … 1.
"""

import pathlib

import click
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from examples.jax_recipes import (
    Batch,
    load_vit,
    make_vit,
    mesh_of,
    place,
    Recipe,
    Settings,
    sharding_of,
    train,
    training_options,
    ViT,
    VIT_SHAPES,
)


def read_images(path: pathlib.Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Images of bytes, and their labels."""
    if path is None:
        images, labels = load_digits(return_X_y=True)
        grey = (np.asarray(images).reshape(-1, 8, 8, 1) * 15).astype(np.uint8)
        return np.repeat(grey, 3, axis=3), np.asarray(labels)
    with np.load(path) as archive:
        if missing := {"images", "labels"} - set(archive):
            raise click.UsageError(f"{path} has no {' and no '.join(sorted(missing))}; save both with numpy.savez.")
        images, labels = archive["images"], archive["labels"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or len(images) != len(labels):
        raise click.UsageError(
            f"{path}: images of shape {images.shape} and {images.dtype} do not fit {len(labels)} labels; "
            "(count, height, width, 3) of uint8 is needed."
        )
    return images, labels


def loss_of(model: ViT, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy, and accuracy."""
    scaled = jax.image.resize(images / 127.5 - 1.0, (len(images), model.size, model.size, 3), "bilinear")
    logits = jax.vmap(model)(jnp.transpose(scaled, (0, 3, 1, 2)))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses), jnp.mean(jnp.argmax(logits, axis=1) == labels)


@click.command(help=__doc__ and __doc__.splitlines()[0])
@training_options(out="runs/vit-jax", steps=300, batch=64)
@click.option(
    "--model",
    default="vit-tiny-16",
    show_default=True,
    metavar="SHAPE|FOLDER",
    help=f"{', '.join(VIT_SHAPES)} with random weights, or a folder of transformers.",
)
@click.option("--data", type=click.Path(path_type=pathlib.Path, exists=True, dir_okay=False), help="Images as .npz.")
@click.option("--remat", is_flag=True, help="Compute activations again in the backward pass, to save memory.")
def main(settings: Settings, model: str, data: pathlib.Path | None, remat: bool) -> None:
    mesh = mesh_of(settings.devices, settings.batch)
    images, labels = read_images(data)
    classes = int(labels.max()) + 1
    if model in VIT_SHAPES:
        network = make_vit(VIT_SHAPES[model], classes, remat, settings.seed)
    elif pathlib.Path(model).is_dir():
        network = load_vit(pathlib.Path(model), classes, remat, settings.seed)
    else:
        raise click.UsageError(f"--model {model} is no folder and none of {', '.join(VIT_SHAPES)}.")

    def loss(network: ViT, _: None, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return loss_of(network, batch["images"], batch["labels"])

    order = np.random.default_rng(0).permutation(len(images))
    held, trained = order[: len(images) // 5], order[len(images) // 5 :]
    recipe = Recipe(
        place(network, lambda array: sharding_of(mesh, array.shape)),
        None,
        loss,
        training={"images": images[trained], "labels": labels[trained]},
        validation={"images": images[held], "labels": labels[held]},
    )
    train(recipe, settings, mesh, {"model": model, "data": data})


if __name__ == "__main__":
    main()
