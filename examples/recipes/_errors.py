"""Failures that a user can fix, each in one sentence."""

import contextlib
import pathlib
from collections.abc import Iterator

import click
import torch


@contextlib.contextmanager
def reachable(name: str, otherwise: str) -> Iterator[None]:
    """Says in one sentence that a model or data set cannot be loaded, and what to pass `otherwise`."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise click.ClickException(f"{name} cannot be loaded ({reason}); {otherwise}.") from error


@contextlib.contextmanager
def enough_memory(out: pathlib.Path) -> Iterator[None]:
    """Says what to do where memory does not suffice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_of_memory(error):
            raise
        raise click.ClickException(
            f"The memory does not suffice for the run in {out}; `mnemo plan MODEL` says what a model and its optimizer "
            "need, and --accumulate, --gradient-checkpointing and --shard need less."
        ) from error


def _is_of_memory(error: BaseException) -> bool:
    texts = ("not enough memory", "out of memory", "can't allocate memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def check_length(length: int, most: int | None, what: str) -> None:
    """Refuses a `length` in tokens that a model cannot take."""
    if most is not None and length > most:
        raise click.UsageError(f"{what} is {length} tokens long, and the model takes at most {most}; make it shorter.")
