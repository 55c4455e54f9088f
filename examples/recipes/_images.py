"""Images: a folder or data set of photographs, scikit-learn's digits, and shapes that are drawn on the spot."""

import pathlib
from collections.abc import Sequence
from typing import Any

import click
import datasets
import numpy as np
import torch
from torch import nn, Tensor

from ._task import Example

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
SHAPES = ("disc", "ring", "square", "frame", "diamond", "triangle", "cross", "saltire", "bar", "stripes")


class ArrayImages:
    """Images that are tensors already: (count, channels, side, side), and a class for each."""

    def __init__(self, pixels: Tensor, labels: Tensor):
        self._pixels, self._labels = pixels, labels

    def __len__(self) -> int:
        return len(self._labels)

    def example(self, index: int, random: np.random.Generator) -> Example:
        return {"pixel_values": self._pixels[index], "labels": self._labels[index]}

    def subset(self, indices: np.ndarray) -> "ArrayImages":
        chosen = torch.from_numpy(indices)
        return ArrayImages(self._pixels[chosen], self._labels[chosen])


class DatasetImages:
    """Images of a data set of Hugging Face. They are cut to a square, resized and normalised."""

    def __init__(
        self,
        data: datasets.Dataset,
        columns: tuple[str, str],
        size: int,
        channels: int,
        normal: tuple[Sequence[float], Sequence[float]],
        *,
        augment: bool,
    ):
        """`columns` are those of image and class, and `normal` is mean and standard deviation per channel."""
        self._data, self._columns, self._size, self._augment = data, columns, size, augment
        self._mode = "L" if channels == 1 else "RGB"
        self._mean, self._deviation = (np.asarray(values, np.float32)[:channels] for values in normal)

    def __len__(self) -> int:
        return len(self._data)

    def example(self, index: int, random: np.random.Generator) -> Example:
        try:
            row = self._data[index]
            image = row[self._columns[0]].convert(self._mode)
        except (OSError, SyntaxError) as error:
            raise click.ClickException(f"Image {self._name(index)} cannot be read ({error}).") from error
        image = image.resize((self._size, self._size), box=self._box(image.size, random))
        pixels = np.asarray(image, np.float32).reshape(self._size, self._size, -1) / 255
        if self._augment and random.random() < 0.5:
            pixels = pixels[:, ::-1]
        pixels = (pixels - self._mean) / self._deviation
        label = torch.tensor(row[self._columns[1]])
        return {"pixel_values": torch.from_numpy(pixels.transpose(2, 0, 1).copy()), "labels": label}

    def _box(self, size: tuple[int, int], random: np.random.Generator) -> tuple[float, float, float, float]:
        """The square that is read: the middle, or with augmentation a random one of at least half of the area."""
        side, where = float(min(size)), (0.5, 0.5)
        if self._augment:
            side *= random.uniform(0.7, 1.0)
            where = (random.random(), random.random())
        left, top = (place * (length - side) for place, length in zip(where, size, strict=True))
        return left, top, left + side, top + side

    def _name(self, index: int) -> str:
        plain = self._data.cast_column(self._columns[0], datasets.Image(decode=False))
        return plain[index][self._columns[0]]["path"] or f"number {index}"


def image_folder(folder: pathlib.Path) -> datasets.Dataset:
    """The images in FOLDER/CLASS/, with their classes."""
    files = sorted(file for file in folder.glob("*/*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise click.UsageError(f"{folder} has no images; put them into a folder per class, such as {folder}/cat/1.jpg.")
    classes = sorted({file.parent.name for file in files})
    columns = {"image": [str(file) for file in files], "label": [classes.index(file.parent.name) for file in files]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
    return datasets.Dataset.from_dict(columns, features=features)


def columns_of(data: datasets.Dataset, name: str) -> tuple[str, str]:
    """The columns of image and class."""
    found: dict[type, str] = {}
    for column, feature in data.features.items():
        found.setdefault(type(feature), column)
    try:
        return found[datasets.Image], found[datasets.ClassLabel]
    except KeyError:
        raise click.UsageError(
            f"{name} has the columns {', '.join(data.features)}, and none with images or none with classes; "
            "pass a data set that has both."
        ) from None


def digits(size: int, channels: int) -> ArrayImages:
    """scikit-learn's 1,797 digits, enlarged from 8 × 8."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images / 8 - 1, dtype=torch.float32).view(-1, 1, 8, 8)
    larger = nn.functional.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)
    return ArrayImages(larger.repeat(1, channels, 1, 1), torch.tensor(labels, dtype=torch.int64))


def shapes(count: int, size: int, channels: int, seed: int = 0) -> ArrayImages:
    """Ten kinds of shapes at random places, sizes, angles and contrasts, with noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(len(SHAPES), size=count)
    pixels = np.stack([_shape(SHAPES[label], size, random) for label in labels])[:, None]
    return ArrayImages(
        torch.tensor(pixels, dtype=torch.float32).repeat(1, channels, 1, 1), torch.tensor(labels, dtype=torch.int64)
    )


def _shape(name: str, size: int, random: np.random.Generator) -> np.ndarray:
    """One image with values from -1 to 1, and noise."""
    axis = np.linspace(-1, 1, size)
    angle, scale = random.uniform(-0.4, 0.4), random.uniform(0.4, 0.8)
    x, y = np.meshgrid(axis - random.uniform(-0.3, 0.3), axis - random.uniform(-0.3, 0.3))
    u, v = (x * np.cos(angle) + y * np.sin(angle)) / scale, (y * np.cos(angle) - x * np.sin(angle)) / scale
    inside = np.clip(0.5 - _distance(name, u, v) * size * scale / 4, 0, 1)
    contrast = random.uniform(0.6, 1.0) * random.choice([-1, 1])
    return contrast * (2 * inside - 1) + random.normal(scale=0.2, size=(size, size))


def _distance(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Below zero inside of the shape."""
    a, b, radius = np.abs(u), np.abs(v), np.hypot(u, v)
    distances: dict[str, Any] = {
        "disc": radius - 0.9,
        "ring": np.abs(radius - 0.75) - 0.2,
        "square": np.maximum(a, b) - 0.8,
        "frame": np.abs(np.maximum(a, b) - 0.7) - 0.2,
        "diamond": a + b - 1,
        "triangle": np.maximum(a + 0.5 * v - 0.45, -v - 0.8),
        "cross": np.maximum(np.minimum(a, b) - 0.22, np.maximum(a, b) - 1),
        "saltire": np.maximum(np.minimum(np.abs(u + v), np.abs(u - v)) - 0.3, np.maximum(a, b) - 0.9),
        "bar": np.maximum(a - 1, b - 0.3),
        "stripes": np.maximum(np.abs(b - 0.6) - 0.22, a - 1),
    }
    return distances[name]
