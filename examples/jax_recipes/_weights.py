"""Reads a folder of Hugging Face: its configuration and its safetensors."""

import json
import pathlib
from typing import Any

import click
import numpy as np
from safetensors import safe_open


def read_config(folder: pathlib.Path, kind: str) -> dict[str, Any]:
    """The folder's `config.json`, which must be of this kind of model."""
    path = folder / "config.json"
    if not path.is_file():
        raise click.UsageError(f"{folder} has no config.json; pass the folder of a saved {kind} model.")
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("model_type") != kind:
        raise click.UsageError(f"{folder} holds a model of type {config.get('model_type')}, and {kind} is needed here.")
    return config


def read_weights(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of the folder's safetensors, by name."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise click.UsageError(f"{folder} has no safetensors; save the model with save_pretrained.")
    weights: dict[str, np.ndarray] = {}
    for file in files:
        with safe_open(file, framework="numpy") as tensors:
            weights.update((name, tensors.get_tensor(name)) for name in tensors.keys())
    return weights
