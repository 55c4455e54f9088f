"""The peak of a real training step, in a process of its own: `measure.py MODEL TASK SETTING FOLDER` prints bytes.

SETTING is JSON of a `Setting`, and FOLDER holds the package `mnemosyne_base`. Memory is that of the process beyond what
it has after a step of a model with almost no weights: by then libraries are loaded.
"""

import importlib
import json
import pathlib
import sys
from typing import Any

import torch
import transformers

from mnemo_compile.plan import Setting, subject_of


def train(Mnemosyne: Any, subject: Any, setting: Setting, length: int, steps: int) -> None:
    """Real steps, with numbers."""
    model: Any = getattr(transformers, subject.head.auto).from_config(subject.config)
    if subject.head.prompt:
        import peft

        config = peft.PromptTuningConfig(task_type=subject.head.prompt, num_virtual_tokens=setting.virtual_tokens)
        model = peft.get_peft_model(model, config)
    if setting.checkpointing:
        model.config.use_cache = False
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    optimizer = Mnemosyne(model.named_parameters(), total_steps=10)
    # To make random weights takes copies that a step does not: forget the highest number so far.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.dtype == "mixed"):
            loss = model(**batch_of(subject.config, setting.batch, length)).loss
        loss.backward()
        optimizer.step()


def batch_of(config: Any, batch: int, length: int) -> dict[str, torch.Tensor]:
    if not length:
        images = torch.randn(batch, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": images, "labels": torch.randint(2, (batch,))}
    symbols = torch.randint(1, config.vocab_size, (batch, length))
    return {"input_ids": symbols, "attention_mask": torch.ones_like(symbols), "labels": symbols}


def resident(key: str) -> int:
    """Bytes of this process now (`VmRSS`), or at most so far (`VmHWM`)."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


if __name__ == "__main__":
    name, task, text, folder = sys.argv[1:]
    sys.path.insert(0, folder)
    torch.set_num_threads(1)
    Mnemosyne = importlib.import_module("mnemosyne_base").Mnemosyne

    setting, subject = Setting(**json.loads(text)), subject_of(name, task)
    length = setting.length or 0
    small = {"vit": {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 24}}
    small["bert"] = {**small["vit"], "vocab_size": 50}
    small["t5"] = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_heads": 2, "num_layers": 1, "vocab_size": 50}
    kind = type(subject.config)
    options = {"decoder_start_token_id": 0} if kind.model_type == "t5" else {}
    tiny = subject._replace(config=kind(**small[kind.model_type], **options))
    train(Mnemosyne, tiny, setting._replace(batch=1), min(length, 8), 2)
    before = resident("VmRSS")
    train(Mnemosyne, subject, setting, length, 3)
    print(resident("VmHWM") - before)
