"""`transformers.Trainer`."""

import pathlib
from typing import Any

import pytest
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments

from mnemo_compile.integrations.transformers import TotalSteps
from tests.integrations.places import assert_close, BATCH, examples, Network, parameters, plain, STEPS


class InOrder(Trainer):
    """Trains on the data in their order, as a plain loop does."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.train_dataset)  # pyright: ignore[reportArgumentType]


def arguments(folder: pathlib.Path, **options: Any) -> TrainingArguments:
    quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no", "use_cpu": True}
    return TrainingArguments(str(folder), **{"per_device_train_batch_size": BATCH, **quiet, **options})


def test_trainers_steps_are_those_of_a_loop_that_clips_at_1(Mnemosyne: Any, tmp_path: pathlib.Path) -> None:
    model = Network()
    optimizer = Mnemosyne(model.named_parameters(), total_steps=STEPS)
    args = arguments(tmp_path, max_steps=STEPS, lr_scheduler_type="constant")
    InOrder(model, args, train_dataset=examples(), optimizers=(optimizer, None)).train()  # pyright: ignore[reportArgumentType]
    assert_close(parameters(model), plain(Mnemosyne, examples(), clip=1.0))


@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_total_steps_of_epochs(Mnemosyne: Any, tmp_path: pathlib.Path, clip: float) -> None:
    """The number of steps follows from epochs, and only the optimizer anneals."""
    model, data = Network(), examples(5 * BATCH)
    optimizer = Mnemosyne(model.named_parameters())
    args = arguments(tmp_path, num_train_epochs=2, warmup_steps=3, max_grad_norm=clip)
    trainer: Any = InOrder(
        model, args, train_dataset=data, optimizers=(optimizer, None), callbacks=[TotalSteps()]  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    trainer.train()
    assert [group["total_steps"] for group in optimizer.param_groups] == [10]
    assert optimizer.param_groups[0]["lr"] == 1
    assert int(optimizer.param_groups[0]["step"]) == 10
    assert_close(parameters(model), plain(Mnemosyne, data * 2, clip=clip or None))


def test_accumulation_counts_steps_of_the_optimizer(Mnemosyne: Any, tmp_path: pathlib.Path) -> None:
    model, data = Network(), examples()
    optimizer = Mnemosyne(model.named_parameters())
    args = arguments(
        tmp_path,
        num_train_epochs=1,
        per_device_train_batch_size=BATCH // 4,
        gradient_accumulation_steps=4,
    )
    trainer: Any = InOrder(
        model, args, train_dataset=data, optimizers=(optimizer, None), callbacks=[TotalSteps()]  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    trainer.train()
    assert optimizer.param_groups[0]["total_steps"] == STEPS
    assert_close(parameters(model), plain(Mnemosyne, data, clip=1.0))


def test_the_class_instead_of_an_optimizer(Mnemosyne: Any, tmp_path: pathlib.Path) -> None:
    """Trainer makes the groups: shapes tell the roles, and biases do not decay."""
    model, data = Network(), examples()
    args = arguments(tmp_path, num_train_epochs=1, weight_decay=0.1)
    trainer: Any = InOrder(
        model, args, train_dataset=data, optimizer_cls_and_kwargs=(Mnemosyne, {}), callbacks=[TotalSteps()]  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    trainer.train()
    groups = trainer.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert {group["total_steps"] for group in groups} == {STEPS}
    assert {group["lr"] for group in groups} == {1}


def test_a_checkpoint_of_trainer_goes_on_as_if_it_had_not_stopped(Mnemosyne: Any, tmp_path: pathlib.Path) -> None:
    data, saved = examples(), {"save_strategy": "steps", "save_steps": 5, "num_train_epochs": 1}

    def trainer_of(model: Network) -> Any:
        optimizer = Mnemosyne(model.named_parameters())
        return InOrder(
            model,
            arguments(tmp_path, **saved),
            train_dataset=data,  # pyright: ignore[reportArgumentType]
            optimizers=(optimizer, None),
            callbacks=[TotalSteps()],
        )

    model = Network()
    trainer_of(model).train()
    resumed = Network()
    trainer = trainer_of(resumed)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert trainer.optimizer.param_groups[0]["total_steps"] == STEPS
    assert_close(parameters(resumed), parameters(model))
