"""Pre-training of a T5 v1.1 by span corruption, from scratch, on text files of any kind.

    python -m examples.pretrain_t5                                     # two million parameters on Python's sources
    python -m examples.pretrain_t5 --shape t5-small --text corpus --pattern '*.txt' --length 512 --vocabulary 32000

The tokenizer is trained on the same texts first.
"""

import functools
import pathlib
from collections.abc import Sequence

import click
import transformers

from examples.recipes import (
    blocks,
    interpreter_sources,
    pad,
    perform,
    read_texts,
    Settings,
    SpanCorruption,
    split,
    t5_config,
    T5_SHAPES,
    t5_special,
    Task,
    train_tokenizer,
    training_options,
)

PAD, END, FIRST_SENTINEL = 0, 1, 3


def span_corruption(texts: Sequence[str], shape: str, vocabulary: int, length: int, dropout: float) -> Task:
    """A T5 that restores spans of texts."""
    special = t5_special()
    tokenizer = train_tokenizer(
        texts, vocabulary, special, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
    every = blocks(tokenizer, texts, length, END)
    sentinels = range(FIRST_SENTINEL, len(special))
    training, validation = (SpanCorruption(every[places], sentinels, END) for places in split(len(every), 0.03))
    config = t5_config(shape, len(tokenizer), dropout)
    return Task(
        model=lambda: transformers.T5ForConditionalGeneration(config),
        training=training,
        validation=validation,
        collate=functools.partial(pad, padding={"input_ids": PAD}),
        save=tokenizer.save_pretrained,
    )


@click.command(help=__doc__)
@click.option(
    "--text",
    "paths",
    type=click.Path(path_type=pathlib.Path, exists=True),
    multiple=True,
    help="File or folder; may be repeated. By default the interpreter's sources.",
)
@click.option("--pattern", default="*.txt", show_default=True, help="Files that are read in a folder.")
@click.option("--shape", type=click.Choice(list(T5_SHAPES)), default="t5-mini", show_default=True)
@click.option("--vocabulary", type=click.IntRange(min=500), default=1024, show_default=True)
@click.option("--length", type=click.IntRange(min=8), default=64, show_default=True, help="Tokens per example.")
@click.option("--dropout", type=click.FloatRange(0, 1), default=0.0, show_default=True)
@training_options(out="runs/t5", steps=2000, batch=32)
def main(
    settings: Settings,
    paths: tuple[pathlib.Path, ...],
    pattern: str,
    shape: str,
    vocabulary: int,
    length: int,
    dropout: float,
) -> None:
    texts = read_texts(paths or interpreter_sources(), pattern)
    perform(span_corruption(texts, shape, vocabulary, length, dropout), settings)


if __name__ == "__main__":
    main()
