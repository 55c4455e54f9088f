"""Tuning of a soft prompt for a frozen T5: the result is a few megabytes whatever the model's size.

    python -m examples.prompt_tune_t5                                  # a small T5 made on the spot
    python -m examples.prompt_tune_t5 --model google/t5-v1_1-xxl --bfloat16 --gradient-checkpointing --texts pairs.jsonl

A line of a file is {"input": "…", "target": "…"}. By default a T5 of two million parameters is first trained on
Python's sources, and kept in the cache folder; its task is to tell the package that a piece of source comes from.
"""

import functools
import pathlib
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
import peft
import torch
import transformers
from torch import nn

from examples.pretrain_t5 import span_corruption
from examples.recipes import (
    check_length,
    Example,
    interpreter_sources,
    made,
    pad,
    perform,
    reachable,
    read_jsonl,
    read_texts,
    Settings,
    split,
    Task,
    training_options,
)

HELP = "pass the folder of a checkpoint to --model"
PACKAGES = ("asyncio", "email", "idlelib", "importlib", "multiprocessing", "tkinter", "unittest", "xml")
PIECE = 400
"""Characters of a piece of source."""


@dataclass(frozen=True)
class Pairs:
    """Tokens of inputs and targets."""

    inputs: Sequence[list[int]]
    targets: Sequence[list[int]]

    def __len__(self) -> int:
        return len(self.inputs)

    def example(self, index: int, random: np.random.Generator) -> Example:
        tokens = torch.tensor(self.inputs[index])
        return {
            "input_ids": tokens,
            "attention_mask": torch.ones_like(tokens),
            "labels": torch.tensor(self.targets[index]),
        }


def pieces() -> list[tuple[str, str]]:
    """Pieces of source of Python's packages, and the names of these, at most 400 of each."""
    pairs = []
    for package in PACKAGES:
        files = sorted(pathlib.Path(sysconfig.get_path("stdlib"), package).rglob("*.py"))
        texts = [file.read_text(encoding="utf-8") for file in files]
        cut = [text[start : start + PIECE] for text in texts for start in range(0, len(text), PIECE)]
        pairs += [(piece, package) for piece in cut[:: 1 + len(cut) // 400]]
    return pairs


def network(model: str, tokens: int, start: str, *, bfloat16: bool) -> nn.Module:
    """A frozen T5 behind a prompt."""
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    with reachable(model, HELP):
        frozen: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(model, dtype=dtype)
    return prompted(frozen, tokens, start)


def prompted(frozen: Any, tokens: int, start: str) -> nn.Module:
    """The network behind a prompt, which begins as random numbers or as tokens of the vocabulary."""
    kind = {"random": peft.PromptTuningInit.RANDOM, "vocabulary": peft.PromptTuningInit.SAMPLE_VOCAB}[start]
    config = peft.PromptTuningConfig(
        task_type=peft.TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=tokens, prompt_tuning_init=kind
    )
    return peft.get_peft_model(frozen, config)


@click.command(help=__doc__)
@click.option("--model", metavar="NAME|FOLDER", help="T5 checkpoint, of the Hugging Face hub or a folder.")
@click.option("--texts", type=click.Path(path_type=pathlib.Path, exists=True, dir_okay=False), help="Lines of JSON.")
@click.option("--prompt", type=click.IntRange(min=1), default=20, show_default=True, help="Tokens of the prompt.")
@click.option("--start", type=click.Choice(["random", "vocabulary"]), default="vocabulary", show_default=True)
@click.option("--length", type=click.IntRange(min=4), default=128, show_default=True, help="Tokens per text, at most.")
@click.option("--bfloat16", is_flag=True, help="Keep the frozen weights in bfloat16.")
@click.option("--held-out", type=click.FloatRange(0, 1, True, True), default=0.1, show_default=True)
@training_options(out="runs/prompt", steps=300, batch=16)
def main(
    settings: Settings,
    model: str | None,
    texts: pathlib.Path | None,
    prompt: int,
    start: str,
    length: int,
    bfloat16: bool,
    held_out: float,
) -> None:
    pairs = pieces() if texts is None else read_jsonl(texts, ("input", "target"))
    if model is None:
        task = span_corruption(read_texts(interpreter_sources(), "*.py"), "t5-mini", 1024, 64, 0.0)
        model = str(made("t5-source", task, "adafactor:2e-2", steps=1500, batch=32))
    with reachable(model, HELP):
        config = transformers.AutoConfig.from_pretrained(model)
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model)
    if config.model_type not in ("t5", "mt5", "umt5"):
        raise click.UsageError(f"{model} holds a model of the type {config.model_type}, and no T5; {HELP}.")
    most = getattr(config, "n_positions", tokenizer.model_max_length)
    check_length(prompt + length, most, f"The prompt of {prompt} tokens with an input of --length {length}")
    inputs, targets = (
        [
            [*row[: length - 1], config.eos_token_id]
            for row in tokenizer(list(part), add_special_tokens=False)["input_ids"]
        ]
        for part in zip(*pairs, strict=True)
    )
    training, validation = (
        Pairs([inputs[place] for place in places], [targets[place] for place in places])
        for places in split(len(pairs), held_out)
    )
    checkpoint = model
    task = Task(
        model=lambda: network(checkpoint, prompt, start, bfloat16=bfloat16),
        training=training,
        validation=validation,
        collate=functools.partial(pad, padding={"input_ids": tokenizer.pad_token_id or 0}),
    )
    perform(task, settings)


if __name__ == "__main__":
    main()
