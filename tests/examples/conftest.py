"""A task that trains in no time, and a hub that cannot be reached."""

import pathlib
from collections.abc import Callable
from typing import Any

import click.testing
import numpy as np
import pytest
import torch
from torch import nn, Tensor
from transformers.modeling_outputs import SequenceClassifierOutput

from examples.recipes import Example, Settings, Task

Recipe = Callable[..., click.testing.Result]


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Networks are small here, and the machine is shared among the processes of the tests."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time is lost with a network that may not answer."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A cache of the session, since compiling an optimizer takes half a minute."""
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture
def recipe(tmp_path: pathlib.Path) -> Recipe:
    """Runs the command of a recipe with a folder for its results."""

    def run(command: click.Command, *arguments: str) -> click.testing.Result:
        given = [*arguments, "--out", str(tmp_path / "out")]
        result = click.testing.CliRunner().invoke(command, given)
        if not isinstance(result.exception, SystemExit | None):
            raise result.exception
        return result

    return run


class Blobs:
    """Points around one of three centres, with noise that is drawn anew each time."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def example(self, index: int, random: np.random.Generator) -> Example:
        label = index % 3
        point = np.eye(3)[label] + random.normal(scale=0.3, size=3)
        return {"inputs": torch.tensor(point, dtype=torch.float32), "labels": torch.tensor(label)}


class Small(nn.Module):
    """A network with dropout."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, width), nn.Dropout(0.2), nn.ReLU())
        self.head = nn.Linear(width, 3)

    def forward(self, inputs: Tensor, labels: Tensor) -> SequenceClassifierOutput:
        logits: Any = self.head(self.body(inputs))
        return SequenceClassifierOutput(loss=nn.functional.cross_entropy(logits, labels), logits=logits)


def small_task(source: Any = None, model: Callable[[], nn.Module] = Small) -> Task:
    return Task(model=model, training=source or Blobs(50), validation=Blobs(20))


def small_settings(out: pathlib.Path, **values: Any) -> Settings:
    return Settings(**{"out": out, "steps": 12, "batch": 8, "eval_every": 5, "save_every": 4, **values})
