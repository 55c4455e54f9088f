"""A training on `accelerate`."""

import math
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import click
import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch import nn, Tensor
from torch.distributed.checkpoint.state_dict import get_model_state_dict, StateDictOptions
from torch.utils.data import DataLoader, Dataset

from . import _checkpoints, _optimizers
from ._errors import enough_memory
from ._optimizers import Choice
from ._options import Settings
from ._progress import Progress
from ._run import begin, Metrics, Result, write_result
from ._sharding import shard
from ._task import Batch, Example, IGNORED, Source, Task

FLUSH = 10
"""Steps between two reads of the loss, which wait for the device."""


def train(
    task: Task,
    settings: Settings,
    choice: Choice,
    seed: int,
    out: pathlib.Path,
    *,
    resume: bool = True,
    keep: bool = True,
) -> Result:
    """Trains the network of a task.

    **Arguments:**

    - `resume`: whether to go on with what `out` holds; if not, `out` may hold no run.
    - `keep`: whether the trained network is saved.
    """
    with enough_memory(out):
        return _Training(task, settings, choice, seed, out, resume=resume).run(keep=keep)


class _Training:
    def __init__(self, task: Task, settings: Settings, choice: Choice, seed: int, out: pathlib.Path, *, resume: bool):
        self.task, self.settings, self.choice, self.seed, self.out = task, settings, choice, seed, out
        self.accelerator = _accelerator(settings)
        torch.manual_seed(seed)
        model = task.model()
        if settings.gradient_checkpointing:
            _checkpoint_activations(model)
        if self.accelerator.is_main_process:
            begin(out, settings, choice, seed, model, resume=resume)
        self.accelerator.wait_for_everyone()
        if settings.shard:
            model.to(self.accelerator.device)
            shard(model, self.accelerator)
        named = [(name, param) for name, param in model.named_parameters() if param.requires_grad]
        optimizer, self.factor = _optimizers.make(choice, named, settings)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        if settings.shard:
            self.model, self.optimizer = model, self.accelerator.prepare(optimizer)
        else:
            self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.bare = self.accelerator.unwrap_model(self.model)
        self.inner = self.optimizer.optimizer

    def run(self, *, keep: bool) -> Result:
        """Trains to the end."""
        start = _checkpoints.load(self.bare, self.inner, self.out / "checkpoints")
        is_main = self.accelerator.is_main_process
        title = self.out.name if is_main else None
        with (
            Metrics(self.out / "metrics.jsonl" if is_main else None, start) as metrics,
            Progress(title, self.settings.steps, start) as progress,
        ):
            loss, accuracy = self._train(start, metrics, progress)
        result = Result(
            label=self.choice.label,
            seed=self.seed,
            steps=self.settings.steps,
            loss=loss if math.isfinite(loss) else None,
            accuracy=accuracy,
            seconds=round(metrics.seconds, 1),
        )
        if keep:
            self._save_model()
        if is_main:
            write_result(self.out, result)
            shutil.rmtree(self.out / "checkpoints", ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.free_memory()
        return result

    def _train(self, start: int, metrics: Metrics, progress: Progress) -> tuple[float, float]:
        """Takes the steps from `start` on. Returns the last validation."""
        steps, batches = self.settings.steps, iter(self._training_loader(start))
        losses, validation = [], (math.nan, math.nan)
        for step in range(start, steps):
            losses.append(self._step(step, batches))
            done = step + 1
            validates = done == steps or done % self.settings.eval_every == 0
            saves = done < steps and done % self.settings.save_every == 0
            if validates or saves or done % FLUSH == 0:
                self._write(metrics, done, losses)
                losses = []
            if validates:
                validation = self._validate()
                metrics.write(done, validation_loss=validation[0], validation_accuracy=validation[1])
                progress.say(done, *validation)
            metrics.flush()
            if saves:
                _checkpoints.save(self.accelerator, self.bare, self.inner, self.out / "checkpoints", done)
            progress.advance()
        return validation

    def _step(self, step: int, batches: Iterator[Batch]) -> Tensor:
        """One step of the optimizer. Returns the training loss."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.factor(step)
        self.model.train()
        losses = []
        for part in range(self.settings.accumulate):
            batch = next(batches)  # A loader that begins draws a number, so the seed is set after it.
            torch.manual_seed(_seed(self.seed, step, part, self.accelerator.process_index))
            with self.accelerator.accumulate(self.model):
                loss = self.model(**batch).loss
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients and self.settings.clip:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip)
                self.optimizer.step()
                self.optimizer.zero_grad()
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    def _write(self, metrics: Metrics, done: int, losses: list[Tensor]) -> None:
        """Writes the losses of the last steps before `done`, as means over processes."""
        mean = self.accelerator.reduce(torch.stack(losses), "mean")
        assert isinstance(mean, Tensor)
        for step, value in enumerate(mean.tolist(), done - len(losses) + 1):
            metrics.write(step, loss=value)

    def _validate(self) -> tuple[float, float]:
        """Loss and accuracy per label, over all validation examples."""
        self.model.eval()
        sums = torch.zeros(3, dtype=torch.float64)
        with torch.no_grad():
            for batch in self._loader(_Fixed(self.task.validation), range(len(self.task.validation))):
                labels = batch["labels"]
                rows = self.accelerator.gather_for_metrics(_sums(self.model(**batch).logits, labels))
                assert isinstance(rows, Tensor)
                sums += rows.cpu().double().sum(0)
        loss, right, count = sums.tolist()
        return loss / count, right / count

    def _save_model(self) -> None:
        """Saves the trained network as a folder of transformers or peft."""
        whole = {}
        if self.settings.shard:
            options = StateDictOptions(full_state_dict=True, cpu_offload=True)
            whole["state_dict"] = get_model_state_dict(self.bare, options=options)
            getattr(self.bare, "unshard")()  # peft evaluates a prompt to save it.
        if self.accelerator.is_main_process:
            partial = self.out / "model.partial"
            shutil.rmtree(partial, ignore_errors=True)
            getattr(self.bare, "save_pretrained")(partial, **whole)
            if self.task.save is not None:
                self.task.save(partial)
            shutil.rmtree(self.out / "model", ignore_errors=True)
            partial.rename(self.out / "model")

    def _training_loader(self, start: int) -> DataLoader[Batch]:
        size = self.settings.batch
        data = _Shuffled(self.task.training, self.seed)
        return self._loader(data, range(start * size, self.settings.steps * size))

    def _loader(self, data: Dataset[Example], places: range) -> DataLoader[Batch]:
        loader = DataLoader(
            data,
            batch_size=self.settings.batch // self.settings.accumulate,
            sampler=places,
            collate_fn=self.task.collate,
            num_workers=self.settings.workers,
        )
        return self.accelerator.prepare(loader)


def _checkpoint_activations(model: Any) -> None:
    """Computes activations again in the backward pass. transformers changed the name of it in 5."""
    name = "activation_checkpointing_enable"
    getattr(model, name if hasattr(model, name) else "gradient_checkpointing_enable")({"use_reentrant": False})


def _accelerator(settings: Settings) -> Accelerator:
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision=settings.precision,
        gradient_accumulation_steps=settings.accumulate,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    parts = settings.accumulate * accelerator.num_processes
    if settings.batch % parts:
        raise click.UsageError(
            f"--batch {settings.batch} in {settings.accumulate} parts cannot be divided over "
            f"{accelerator.num_processes} processes; pass a multiple of {parts}."
        )
    return accelerator


class _Shuffled(Dataset[Example]):
    """Endless epochs, each in an order of its own. What is at a place follows from the seed alone."""

    def __init__(self, source: Source, seed: int):
        self._source, self._seed = source, seed
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __getitem__(self, place: int) -> Example:
        epoch, offset = divmod(place, len(self._source))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self._seed, epoch]).permutation(len(self._source))
        return self._source.example(int(self._order[1][offset]), np.random.default_rng([self._seed, 1, place]))


class _Fixed(Dataset[Example]):
    """Examples that are the same in every validation."""

    def __init__(self, source: Source):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, place: int) -> Example:
        return self._source.example(place, np.random.default_rng(place))


def _seed(*parts: int) -> int:
    """A seed for what is random in a step, such as dropout."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Per example: the sum of losses, the number of right labels, and the number of labels."""
    counts = labels != IGNORED
    losses = nn.functional.cross_entropy(
        logits.float().flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    columns = (losses.view_as(labels), (logits.argmax(-1) == labels) & counts, counts)
    return torch.stack([column.float().reshape(len(labels), -1).sum(1) for column in columns], 1)
