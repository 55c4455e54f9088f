"""The command that runs what was planned."""

import shlex

from ._memory import Setting
from ._models import Subject
from ._placement import Placement


def command(subject: Subject, setting: Setting, placement: Placement, length: int) -> str | None:
    """The command line of the example that does the task, from a checkout, or None if there is no such example.

    **Arguments:**

    - `length`: symbols of a text, 0 for images.
    """
    model = _model(subject)
    is_prompt = subject.head.prompt is not None
    # Only frozen weights may be bfloat16 there.
    if subject.head.example is None or model is None or (setting.dtype == "bfloat16" and not is_prompt):
        return None
    words = ["-m", subject.head.example, *model, "--batch", str(setting.batch * placement.devices)]
    if length:
        words += ["--length", str(length)]
    if is_prompt:
        words += ["--prompt", str(setting.virtual_tokens)]
    words += {"float32": [], "mixed": ["--precision", "bf16"], "bfloat16": ["--bfloat16"]}[setting.dtype]
    words += ["--gradient-checkpointing"] * setting.checkpointing + ["--shard"] * (placement.sharding == "fully_shard")
    alone = placement.devices == 1
    launcher = (
        ["python"] if alone else ["accelerate", "launch", "--multi_gpu", "--num_processes", f"{placement.devices}"]
    )
    return shlex.join([*launcher, *words])


def _model(subject: Subject) -> list[str] | None:
    """How the example is asked for the model."""
    if subject.head.pretrained and subject.checkpoint is not None:
        return ["--model", subject.checkpoint]
    return None if subject.shape is None else ["--shape", subject.shape]
