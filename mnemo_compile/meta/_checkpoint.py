"""Checkpoints of a run: its whole state, written completely or not at all."""

import logging
import pathlib
import shutil
from typing import TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from .._interrupts import cleaned_up

Tree = TypeVar("Tree")


class Checkpoints:
    """The newest checkpoints in a folder, by meta-step. An interrupted write leaves the older ones intact.

    Only one process opens them, and the others need not see the folder: what is saved and restored are whole arrays on
    the host.
    """

    def __init__(self, folder: pathlib.Path):
        # Errors are raised and reported once; Orbax would also print them, with a traceback.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self._folder = folder.absolute()
        self._folder.mkdir(exist_ok=True)
        process = jax.process_index()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=2,
                create=False,
                enable_async_checkpointing=False,
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=process, active_processes={process}, barrier_sync_key_prefix="first"
                ),
            ),
        )

    def latest(self) -> int | None:
        """The meta-step of the newest checkpoint, or None where there is none."""
        return self._manager.latest_step()

    def save(self, meta_step: int, state: PyTree[np.ndarray]) -> None:
        """Writes the state, unless this meta-step has a checkpoint already."""
        if self.latest() == meta_step:
            return
        with cleaned_up(self._remove_unfinished):
            self._manager.save(meta_step, args=ocp.args.StandardSave(_numbered(state)))

    def _remove_unfinished(self) -> None:
        for unfinished in self._folder.glob("*.orbax-checkpoint-tmp"):
            shutil.rmtree(unfinished, ignore_errors=True)

    def restore(self, template: Tree) -> Tree:
        """The newest state, in the structure of `template` and with arrays of its shapes."""
        restored = self._manager.restore(self.latest(), args=ocp.args.StandardRestore(_numbered(template)))
        leaves, structure = jax.tree.flatten(template)
        return structure.unflatten([np.asarray(restored[_name(i)]) for i in range(len(leaves))])

    def close(self) -> None:
        """Frees the manager's resources."""
        self._manager.close()


def _name(index: int) -> str:
    return f"{index:05d}"


def _numbered(tree: object) -> dict[str, np.ndarray]:
    """Leaves by their position, which does not depend on how a library names the places in a tree."""
    return {_name(index): np.asarray(leaf) for index, leaf in enumerate(jax.tree.leaves(tree))}
