"""Pre-training of a BERT by masked-language modelling, from scratch, on text files of any kind.

    python -m examples.pretrain_bert                                  # BERT-tiny on the interpreter's sources
    python -m examples.pretrain_bert --shape bert-base --text corpus --pattern '*.txt' --length 512 --vocabulary 30000

The tokenizer is trained on the same texts first.
"""

import pathlib
from dataclasses import dataclass

import click
import numpy as np
import torch
import transformers
from torch import Tensor

from examples.recipes import (
    blocks,
    Example,
    IGNORED,
    interpreter_sources,
    perform,
    read_texts,
    Settings,
    split,
    Task,
    train_tokenizer,
    training_options,
)

SHAPES = {
    "bert-tiny": (128, 2, 2),
    "bert-small": (512, 4, 8),
    "bert-base": (768, 12, 12),
    "bert-large": (1024, 24, 16),
}
"""Width, layers, heads."""
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, _, START, END, MASK = range(len(SPECIAL))


@dataclass(frozen=True)
class Masked:
    """Blocks of tokens, of which 15 % are to be found: 80 % of them masked, 10 % replaced and 10 % left."""

    blocks: Tensor
    vocabulary: int

    def __len__(self) -> int:
        return len(self.blocks)

    def example(self, index: int, random: np.random.Generator) -> Example:
        tokens = self.blocks[index].numpy().copy()
        chosen, kind = random.random(len(tokens)) < 0.15, random.random(len(tokens))
        chosen[random.integers(len(tokens))] = True  # At least one, so that the mean loss is a number.
        labels = np.where(chosen, tokens, IGNORED)
        tokens[chosen & (kind < 0.8)] = MASK
        replaced = chosen & (kind >= 0.9)
        tokens[replaced] = random.integers(len(SPECIAL), self.vocabulary, replaced.sum())
        return {
            "input_ids": torch.from_numpy(np.concatenate([[START], tokens, [END]])),
            "labels": torch.from_numpy(np.concatenate([[IGNORED], labels, [IGNORED]])),
        }


@click.command(help=__doc__)
@click.option(
    "--text",
    "paths",
    type=click.Path(path_type=pathlib.Path, exists=True),
    multiple=True,
    help="File or folder; may be repeated. By default the interpreter's sources.",
)
@click.option("--pattern", default="*.txt", show_default=True, help="Files that are read in a folder.")
@click.option("--shape", type=click.Choice(list(SHAPES)), default="bert-tiny", show_default=True)
@click.option("--vocabulary", type=click.IntRange(min=300), default=2048, show_default=True)
@click.option("--length", type=click.IntRange(min=8), default=64, show_default=True, help="Tokens per example.")
@click.option("--held-out", type=click.FloatRange(0, 1, True, True), default=0.05, show_default=True)
@training_options(out="runs/bert", steps=300, batch=16)
def main(
    settings: Settings,
    paths: tuple[pathlib.Path, ...],
    pattern: str,
    shape: str,
    vocabulary: int,
    length: int,
    held_out: float,
) -> None:
    texts = read_texts(paths or interpreter_sources(), pattern)
    trained, held = ([texts[place] for place in places] for places in split(len(texts), held_out))
    tokenizer = train_tokenizer(
        trained or texts,
        vocabulary,
        SPECIAL,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    width, layers, heads = SHAPES[shape]
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=length,
    )
    if trained:
        training, validation = (blocks(tokenizer, part, length - 2, END) for part in (trained, held))
    else:
        every = blocks(tokenizer, texts, length - 2, END)
        training, validation = (every[torch.from_numpy(places)] for places in split(len(every), held_out))
    task = Task(
        model=lambda: transformers.BertForMaskedLM(config),
        training=Masked(training, len(tokenizer)),
        validation=Masked(validation, len(tokenizer)),
        save=tokenizer.save_pretrained,
    )
    perform(task, settings)


if __name__ == "__main__":
    main()
