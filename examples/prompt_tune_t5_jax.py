"""Tuning of a soft prompt for a frozen T5 v1.1 in JAX, whose weights are divided over all devices.

    python -m examples.prompt_tune_t5_jax                                        # a small network with random weights
    python -m examples.prompt_tune_t5_jax --model FOLDER --texts pairs.jsonl     # a T5 v1.1 saved by transformers

A line of a file is {"input": "…", "target": "…"}. A folder with a `tokenizer.json` has its own tokens; without one,
tokens are bytes. By default the task is to tell the package of the standard library that a piece of source comes from.
"""

import json
import pathlib
import sysconfig
from collections.abc import Callable

import click
import jax
import jax.numpy as jnp
import numpy as np

from examples.jax_recipes import (
    Batch,
    IGNORED,
    load_t5,
    make_sharded_t5,
    mesh_of,
    place,
    Recipe,
    Settings,
    shard_t5,
    sharding_of,
    T5,
    t5_loss,
    T5_SHAPES,
    train,
    training_options,
)

PACKAGES = ("asyncio", "email", "encodings", "json", "logging", "multiprocessing", "unittest", "xml")
PIECE = 100
"""Characters of a piece of source."""
PIECES = 200
"""At most this many of a package."""
FIRST_BYTE = 3
"""Bytes come after the tokens of padding, of the end and of what is unknown."""
END = 1

Tokenize = Callable[[str], list[int]]


def read_pairs(path: pathlib.Path | None) -> list[tuple[str, str]]:
    """Inputs and targets."""
    if path is not None:
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            return [(str(line["input"]), str(line["target"])) for line in lines]
        except (ValueError, KeyError, TypeError) as error:
            raise click.UsageError(f'{path}: a line must be {{"input": "…", "target": "…"}}: {error!r}.') from None
    pairs = []
    for package in PACKAGES:
        files = sorted((pathlib.Path(sysconfig.get_paths()["stdlib"]) / package).rglob("*.py"))
        text = "".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
        pairs += [(text[at : at + PIECE], package) for at in range(0, len(text) - PIECE, PIECE)][:PIECES]
    return pairs


def tokenizer_of(folder: pathlib.Path | None) -> Tokenize:
    """Gives the tokens of a text, with the end."""
    if folder is not None and (file := folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(file))
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids + [END]
    return lambda text: [byte + FIRST_BYTE for byte in text.encode()] + [END]


def encoded(pairs: list[tuple[str, str]], tokenize: Tokenize, length: int) -> Batch:
    """Tokens of inputs of at most this length, which of them count, and targets."""
    inputs = [tokenize(text)[:length] for text, _ in pairs]
    targets = [tokenize(text)[:length] for _, text in pairs]
    return {
        "inputs": _padded(inputs, 0),
        "mask": _padded([[1] * len(each) for each in inputs], 0),
        "targets": _padded(targets, IGNORED),
    }


def _padded(rows: list[list[int]], filler: int) -> np.ndarray:
    width = max(map(len, rows))
    return np.array([row + [filler] * (width - len(row)) for row in rows], np.int32)


@click.command(help=__doc__ and __doc__.splitlines()[0])
@training_options(out="runs/t5-jax", steps=300, batch=32)
@click.option(
    "--model",
    default="t5-mini",
    show_default=True,
    metavar="SHAPE|FOLDER",
    help=f"{', '.join(T5_SHAPES)} with random weights, or a folder of transformers.",
)
@click.option("--texts", type=click.Path(path_type=pathlib.Path, exists=True, dir_okay=False), help="Pairs as .jsonl.")
@click.option("--prompt-length", type=click.IntRange(min=1), default=100, show_default=True, help="Soft tokens.")
@click.option("--length", type=click.IntRange(min=2), default=128, show_default=True, help="Most tokens of a text.")
@click.option("--float32", is_flag=True, help="Hold the frozen weights in float32; by default they are bfloat16.")
def main(
    settings: Settings, model: str, texts: pathlib.Path | None, prompt_length: int, length: int, float32: bool
) -> None:
    mesh = mesh_of(settings.devices, settings.batch)
    dtype = jnp.float32 if float32 else jnp.bfloat16
    folder = None if model in T5_SHAPES else pathlib.Path(model)
    if folder is None:
        network = make_sharded_t5(T5_SHAPES[model], dtype, settings.seed, mesh)
    elif folder.is_dir():
        network = shard_t5(load_t5(folder, dtype), mesh)
    else:
        raise click.UsageError(f"--model {model} is no folder and none of {', '.join(T5_SHAPES)}.")
    pairs = read_pairs(texts)
    data = encoded(pairs, tokenizer_of(folder), length)
    highest = max(int(data["inputs"].max()), int(data["targets"].max()))
    if highest >= network.shape.vocabulary:
        raise click.UsageError(f"token {highest} is not one of the {network.shape.vocabulary} of {model}.")
    # As in Lester et al. 2021, the prompt starts at embeddings of the vocabulary.
    start = np.random.default_rng(settings.seed).integers(FIRST_BYTE, network.shape.vocabulary, prompt_length)
    prompt = jnp.asarray(network.shared[start], jnp.float32)
    params = place({"prompt": prompt}, lambda array: sharding_of(mesh, array.shape))

    def loss(params: dict[str, jax.Array], frozen: T5, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return t5_loss(params["prompt"], frozen, batch["inputs"], batch["mask"], batch["targets"])

    order = np.random.default_rng(0).permutation(len(pairs))
    held, trained = order[: len(pairs) // 5], order[len(pairs) // 5 :]
    recipe = Recipe(
        params,
        network,
        loss,
        training={name: rows[trained] for name, rows in data.items()},
        validation={name: rows[held] for name, rows in data.items()},
    )
    options = {"model": model, "texts": texts, "prompt_length": prompt_length, "length": length, "float32": float32}
    train(recipe, settings, mesh, options)


if __name__ == "__main__":
    main()
