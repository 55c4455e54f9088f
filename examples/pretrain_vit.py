"""Pre-training of a Vision Transformer on shapes that are drawn on the spot, or on a folder of images.

python -m examples.pretrain_vit --steps 1000 --out runs/shapes
"""

import pathlib

import click
import transformers

from examples.recipes import (
    columns_of,
    DatasetImages,
    image_folder,
    perform,
    Settings,
    shapes,
    split,
    Task,
    training_options,
    vit_config,
    VIT_SHAPES,
)

CLASSES = 10
"""Kinds of shapes."""


def shapes_task(shape: str, count: int, held_out: int) -> Task:
    """A ViT of one channel that tells kinds of shapes."""
    config = vit_config(shape, CLASSES, channels=1)
    size = config.image_size
    assert isinstance(size, int)
    return Task(
        model=lambda: transformers.ViTForImageClassification(config),
        training=shapes(count, size, 1),
        validation=shapes(held_out, size, 1, seed=1),
    )


def folder_task(shape: str, folder: pathlib.Path, held_out: float) -> Task:
    """A ViT that tells the classes of a folder of images."""
    data = image_folder(folder)
    columns = columns_of(data, str(folder))
    config = vit_config(shape, data.features[columns[1]].num_classes)
    size, normal = config.image_size, ([0.5] * 3, [0.5] * 3)
    assert isinstance(size, int)
    trained, held = (
        DatasetImages(data.select(rows), columns, size, 3, normal, augment=augment)
        for rows, augment in zip(split(len(data), held_out), (True, False), strict=True)
    )
    return Task(model=lambda: transformers.ViTForImageClassification(config), training=trained, validation=held)


@click.command(help=__doc__)
@click.option("--shape", type=click.Choice(list(VIT_SHAPES)), default="vit-tiny-16", show_default=True)
@click.option(
    "--images",
    type=click.Path(path_type=pathlib.Path, exists=True, file_okay=False),
    help="Folder with a folder of images per class, in place of shapes.",
)
@click.option("--count", type=click.IntRange(min=1), default=20_000, show_default=True, help="Shapes to draw.")
@click.option("--held-out", type=click.FloatRange(0, 1, True, True), default=0.1, show_default=True)
@training_options(out="runs/vit-shapes", steps=1000, batch=64)
def main(settings: Settings, shape: str, images: pathlib.Path | None, count: int, held_out: float) -> None:
    drawn = shapes_task(shape, count, max(1, round(count * held_out))) if images is None else None
    perform(drawn or folder_task(shape, images or pathlib.Path(), held_out), settings)


if __name__ == "__main__":
    main()
