"""Fine-tuning of a Vision Transformer: all of it, its last layers, its head, or low-rank adapters.

    python -m examples.finetune_vit                                    # digits, from a small ViT made on the spot
    python -m examples.finetune_vit --model google/vit-base-patch16-224-in21k --images photographs
    python -m examples.finetune_vit --model google/vit-huge-patch14-224-in21k --data cifar10 --lora 16
    python -m examples.finetune_vit --shape vit-36x16 --images photographs --gradient-checkpointing

Without --model and --shape a small ViT is first trained on shapes, and kept in the cache folder.
"""

import pathlib
from typing import Any

import click
import datasets
import peft
import transformers
from torch import nn

from examples.pretrain_vit import shapes_task
from examples.recipes import (
    columns_of,
    DatasetImages,
    digits,
    freeze,
    image_folder,
    made,
    perform,
    reachable,
    Settings,
    Source,
    split,
    Task,
    training_options,
    vit_config,
    VIT_SHAPES,
)

HELP = "pass the folder of a checkpoint to --model, or a --shape for random weights"


def config_of(model: str | None, shape: str | None, classes: int) -> transformers.ViTConfig:
    """The configuration of a checkpoint or shape, with a head for these classes."""
    if model is None:
        return vit_config(shape or "vit-base", classes)
    with reachable(model, HELP):
        config = transformers.AutoConfig.from_pretrained(model, num_labels=classes)
    if not isinstance(config, transformers.ViTConfig):
        raise click.UsageError(f"{model} holds a model of the type {config.model_type}, and no ViT; {HELP}.")
    return config


def data_of(
    config: transformers.ViTConfig,
    model: str | None,
    data: datasets.Dataset | None,
    name: str,
    held_out: float,
    *,
    augment: bool,
) -> tuple[Source, Source]:
    """Training and validation images, as the model takes them."""
    size, channels = config.image_size, config.num_channels
    assert isinstance(size, int)
    if data is None:
        images = digits(size, channels)
        trained, held = split(len(images), held_out)
        return images.subset(trained), images.subset(held)
    columns, normal = columns_of(data, name), normalisation(model)
    trained, held = (
        DatasetImages(data.select(rows), columns, size, channels, normal, augment=augment and is_training)
        for rows, is_training in zip(split(len(data), held_out), (True, False), strict=True)
    )
    return trained, held


def normalisation(model: str | None) -> tuple[list[float], list[float]]:
    """Mean and standard deviation that the checkpoint was trained with; ViT's own are 0.5."""
    if model is not None:
        try:
            values, _ = transformers.ImageProcessingMixin.get_image_processor_dict(model)
            return values["image_mean"], values["image_std"]
        except (OSError, KeyError):
            pass
    return [0.5] * 3, [0.5] * 3


def network(config: transformers.ViTConfig, model: str | None, trained: str, lora: int) -> nn.Module:
    """The network, with what is trained of it."""
    kind = transformers.ViTForImageClassification
    if model is None:
        built: Any = kind(config)
    else:
        with reachable(model, HELP):
            built = kind.from_pretrained(model, config=config, ignore_mismatched_sizes=True)
    if lora:
        adapters = peft.LoraConfig(
            r=lora, lora_alpha=lora, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"]
        )
        return peft.get_peft_model(built, adapters)
    freeze(built, trained, heads=("classifier",))
    return built


@click.command(help=__doc__)
@click.option("--model", metavar="NAME|FOLDER", help="Checkpoint, of the Hugging Face hub or a folder.")
@click.option("--shape", type=click.Choice(list(VIT_SHAPES)), help="Random weights in place of a checkpoint.")
@click.option(
    "--images", type=click.Path(path_type=pathlib.Path, exists=True, file_okay=False), help="A folder per class."
)
@click.option("--data", metavar="NAME", help="Data set of the Hugging Face hub, with images and classes.")
@click.option("--train", "trained", default="all", show_default=True, metavar="all|head|K", help="K: last layers.")
@click.option("--lora", type=click.IntRange(min=0), default=0, show_default=True, help="Rank of adapters; 0: none.")
@click.option("--augment", is_flag=True, help="Random crops and mirrored images.")
@click.option("--held-out", type=click.FloatRange(0, 1, True, True), default=0.2, show_default=True)
@training_options(out="runs/vit", steps=300, batch=64)
def main(
    settings: Settings,
    model: str | None,
    shape: str | None,
    images: pathlib.Path | None,
    data: str | None,
    trained: str,
    lora: int,
    augment: bool,
    held_out: float,
) -> None:
    if model is not None and shape is not None:
        raise click.UsageError("--model and --shape exclude each other; --shape is for random weights.")
    if images is not None and data is not None:
        raise click.UsageError("--images and --data exclude each other; pass one of them.")
    rows = image_folder(images) if images is not None else None
    if data is not None:
        with reachable(data, "pass a folder of images to --images"):
            loaded = datasets.load_dataset(data, split="train")
        assert isinstance(loaded, datasets.Dataset)
        rows = loaded
    if model is None and shape is None:
        model = str(made("vit-shapes", shapes_task("vit-tiny-16", 20_000, 1000), "adamw:1e-3", steps=2000, batch=64))
    name = str(images or data or "digits")
    classes = 10 if rows is None else rows.features[columns_of(rows, name)[1]].num_classes
    config = config_of(model, shape, classes)
    training, validation = data_of(config, model, rows, name, held_out, augment=augment)
    perform(Task(lambda: network(config, model, trained, lora), training, validation), settings)


if __name__ == "__main__":
    main()
