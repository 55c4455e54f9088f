"""Texts: files of any kind, lines of JSON, a tokenizer that is trained on the spot."""

import json
import pathlib
import sysconfig
from collections.abc import Iterable, Sequence
from typing import Any

import click
import tokenizers
import torch
import transformers
from torch import Tensor


def interpreter_sources() -> list[pathlib.Path]:
    """The sources of Python's own modules, of which every installation has some ten megabytes."""
    return sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py"))


def read_texts(paths: Sequence[pathlib.Path], pattern: str) -> list[str]:
    """The texts of files, and of the files in folders that match a pattern such as `*.txt`."""
    files: list[pathlib.Path] = []
    for path in paths:
        inside = sorted(file for file in path.rglob(pattern) if file.is_file()) if path.is_dir() else [path]
        if not inside:
            raise click.UsageError(f"{path} has no files that match {pattern}; pass another --pattern.")
        files += inside
    return [_read(file) for file in files]


def _read(file: pathlib.Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise click.ClickException(f"{file} is no text in UTF-8 ({error}).") from error


def read_jsonl(file: pathlib.Path, keys: tuple[str, str]) -> list[tuple[str, str]]:
    """Two texts from each line, which is a JSON object with these keys."""
    pairs = []
    for number, line in enumerate(_read(file).splitlines(), 1):
        try:
            row: Any = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in keys):
            expected = json.dumps({key: "…" for key in keys}, ensure_ascii=False)
            raise click.ClickException(f"{file}, line {number} is not what is expected, which is {expected}.")
        pairs.append((row[keys[0]], row[keys[1]]))
    if len(pairs) < 2:
        raise click.ClickException(f"{file} has {len(pairs)} lines, and at least two are needed.")
    return pairs


def train_tokenizer(
    texts: Iterable[str], vocabulary: int, special: Sequence[str], **roles: Any
) -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer. `roles` name special tokens, as in `pad_token="[PAD]"`."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **roles)


def blocks(tokenizer: transformers.PreTrainedTokenizerFast, texts: Sequence[str], length: int, between: int) -> Tensor:
    """All texts in one row, with the token `between` after each, cut into blocks of `length` tokens."""
    rows = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    flat = torch.tensor([token for row in rows for token in (*row, between)])
    count = len(flat) // length
    if count < 2:
        raise click.UsageError(
            f"The texts have {len(flat)} tokens, too few for two blocks of {length}; pass more text."
        )
    return flat[: count * length].view(count, length)
