"""Checkpoints that are whole or absent."""

import contextlib
import pathlib
import shutil
import warnings
from collections.abc import Iterator
from typing import Any

import click
import torch.distributed.checkpoint as dcp
from accelerate import Accelerator
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict, StateDictOptions
from torch.optim import Optimizer

OPTIONS = StateDictOptions(ignore_frozen_params=True, strict=False)
"""Frozen weights are where the network came from, so a checkpoint is as small as what is trained."""


def save(accelerator: Accelerator, model: nn.Module, optimizer: Optimizer, folder: pathlib.Path, step: int) -> None:
    """Saves network and optimizer before step `step`. The earlier checkpoint goes when this one is complete."""
    partial = folder / "partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    with _alone():
        dcp.state_dict_saver.save(_state(model, optimizer), checkpoint_id=partial)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        partial.rename(folder / f"step-{step}")
        for other in _steps(folder) - {step}:
            shutil.rmtree(folder / f"step-{other}")
    accelerator.wait_for_everyone()


def load(model: nn.Module, optimizer: Optimizer, folder: pathlib.Path) -> int:
    """Loads the last checkpoint. Returns the step to go on with, which is 0 if there is none."""
    step = max(_steps(folder), default=0)
    if step:
        with _alone():
            state = _state(model, optimizer)
            try:
                dcp.state_dict_loader.load(state, checkpoint_id=folder / f"step-{step}")
            except (RuntimeError, OSError, CheckpointException) as error:
                raise click.ClickException(
                    f"{folder / f'step-{step}'} is damaged or of another model; delete {folder} to begin anew."
                ) from error
            # An optimizer's groups share their names, and tensors get their values where they are.
            set_state_dict(
                model,
                optimizer,
                model_state_dict=state["model"],
                optim_state_dict=state["optimizer"],
                options=OPTIONS,
            )
    return step


def _steps(folder: pathlib.Path) -> set[int]:
    return {int(path.name.removeprefix("step-")) for path in folder.glob("step-*")}


def _state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    weights, moments = get_state_dict(model, optimizer, options=OPTIONS)
    return {"model": weights, "optimizer": moments}


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Without the remark that there is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is (disabled, )?unavailable or uninitialized")
        yield
