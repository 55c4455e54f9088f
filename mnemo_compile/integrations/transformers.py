"""For `transformers.Trainer`."""

from typing import Any

from ..errors import MissingExtraError

try:
    from transformers import SchedulerType, TrainerCallback
except ModuleNotFoundError as error:
    if error.name != "transformers":
        raise
    raise MissingExtraError("transformers", "recipes") from None


class TotalSteps(TrainerCallback):
    """Gives Trainer's number of steps to the optimizer, and leaves the schedule to it.

    ```python
    optimizer = Mnemosyne(model.named_parameters())
    Trainer(model, arguments, train_dataset=data, optimizers=(optimizer, None), callbacks=[TotalSteps()]).train()
    ```

    The number follows from `max_steps`, or from `num_train_epochs`, the data, the batch and the accumulation. Trainer's
    own schedule becomes constant, whatever `lr_scheduler_type` says, so that the step anneals once. A scheduler that is
    passed in `optimizers` stays.
    """

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Makes the schedule of Trainer constant, before Trainer builds it."""
        args.lr_scheduler_type = SchedulerType.CONSTANT

    def on_train_begin(self, args: Any, state: Any, control: Any, *, optimizer: Any, **kwargs: Any) -> None:
        """Sets the number of steps, which also replaces that of a checkpoint."""
        for group in optimizer.param_groups:
            group["total_steps"] = state.max_steps
