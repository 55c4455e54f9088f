"""What a plan says follows from the model, the optimizers and the devices."""

import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from mnemo_compile.cli import main
from mnemo_compile.exporters.python import load_package
from mnemo_compile.frozen import FrozenCell
from mnemo_compile.plan import (
    format_size,
    Memory,
    MODELS,
    parse_size,
    place,
    plan,
    Setting,
    state_bytes,
    step_memory,
    subject_of,
)
from mnemo_compile.plan._state import adafactor_bytes, adamw_bytes

SHAPES = {"embedding.weight": (50, 8), "norm.weight": (8,), "layer.weight": (12, 8), "conv.weight": (4, 3, 5, 5)}
PARAMETERS = {"vit-base": 86, "vit-large": 303, "vit-huge": 631, "bert-base": 109, "bert-large": 335, "t5-xxl": 11004}
"""Millions, as in the papers; transformers 5 ties the head of T5."""


def bytes_kept(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors in a real state after a step."""
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = torch.ones_like(param)
    optimizer.step()
    values = [value for state in optimizer.state.values() for value in state.values()]
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))


def parameters(dtype: torch.dtype = torch.float32) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, torch.nn.Parameter(torch.ones(shape, dtype=dtype))) for name, shape in SHAPES.items()]


def test_state_is_that_of_real_optimizers(base: FrozenCell, package_folder: pathlib.Path) -> None:
    Mnemosyne = load_package(package_folder / "mnemosyne_base").Mnemosyne
    assert state_bytes(base.cell(), SHAPES) == bytes_kept(Mnemosyne(parameters()))
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        params = [param for _, param in parameters(dtype)]
        assert adamw_bytes(SHAPES, size) == bytes_kept(torch.optim.AdamW(params))
        assert adafactor_bytes(SHAPES, size) == bytes_kept(torch.optim.Adafactor(params))


@pytest.mark.parametrize(
    ("text", "size"), [("80G", 80e9), ("80 GB", 80e9), ("1.5k", 1500), ("16GiB", 2**34), ("2T", 2e12), ("7", 7)]
)
def test_a_size_is_read(text: str, size: float) -> None:
    assert parse_size(text) == size


def test_a_size_is_written() -> None:
    assert [format_size(size) for size in (0, 999, 1000, 12.34e9, 999.6e9)] == [
        "0 B",
        "999 B",
        "1 kB",
        "12.3 GB",
        "1 TB",
    ]


def memory_of(model: str, task: str, **setting: Any) -> Memory:
    return step_memory(subject_of(model, task), Setting(**setting))


@pytest.mark.parametrize("model", PARAMETERS)
def test_well_known_models_have_their_size(model: str) -> None:
    task = {"v": "finetune", "b": "pretrain", "t": "pretrain"}[model[0]]
    from mnemo_compile.plan._models import build

    network = build(subject_of(model, task), virtual_tokens=1, checkpointing=False)
    assert sum(param.numel() for param in network.parameters()) / 1e6 == pytest.approx(PARAMETERS[model], rel=0.02)
    assert all(param.is_meta for param in network.parameters())


def test_each_short_name_has_a_task_with_an_example() -> None:
    for model in MODELS:
        tasks = ("prompt-tune", "pretrain") if model.startswith("t5") else ("finetune", "pretrain")
        assert all(subject_of(model, task).head.example for task in tasks)


def test_activations_grow_with_the_batch_and_shrink_with_checkpointing_and_bfloat16() -> None:
    one, two = (memory_of("bert-tiny", "finetune", batch=batch, length=64) for batch in (4, 8))
    assert two.activations == pytest.approx(2 * one.activations, rel=0.05)
    assert two.weights == one.weights and two.gradients == one.gradients
    again = memory_of("t5-small", "pretrain", batch=4, length=64, checkpointing=True)
    mixed = memory_of("t5-small", "pretrain", batch=4, length=64, dtype="mixed")
    plain = memory_of("t5-small", "pretrain", batch=4, length=64)
    assert again.activations < plain.activations / 2 and mixed.weights == plain.weights
    assert memory_of("t5-small", "pretrain", batch=4, length=64, dtype="bfloat16").weights < 0.51 * plain.weights


def test_a_soft_prompt_is_all_that_is_trained() -> None:
    memory = memory_of("t5-small", "prompt-tune", batch=1, length=16, virtual_tokens=7)
    (shape,) = memory.trained.values()
    assert shape[1] == 512 and memory.gradients == 4 * 512 * shape[0]


MEMORY = Memory(
    weights=100, gradients=100, activations=50, passes=230, largest_block=10, trained={}, trained_bytes=4, parameters=25
)


def test_copies_come_before_shards_and_shards_before_nothing() -> None:
    assert place(MEMORY, 200, capacity=None, devices=None)[:2] == (1, "none")
    assert place(MEMORY, 200, capacity=1000, devices=None) == (1, "none", 430, True)
    assert place(MEMORY, 200, capacity=1000, devices=4) == (4, "copies", 530, True)
    sharded = place(MEMORY, 200, capacity=300, devices=None)
    assert sharded.sharding == "fully_shard" and sharded.devices == 4 and sharded.fits
    assert place(MEMORY, 200, capacity=300, devices=2).fits is False
    assert place(MEMORY, 200, capacity=50, devices=None)[::3] == (1, False)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["plan", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_command(capsys: pytest.CaptureFixture[str], base: FrozenCell, tmp_path: pathlib.Path) -> None:
    words = ("bert-tiny", "--task", "pretrain", "--batch", "4", "--length", "32", "--memory", "80G")
    code, out, _ = run(capsys, *words, "--json")
    data = json.loads(out)
    assert code == 0 and list(data["optimizers"]) == ["mnemosyne-base", "AdamW", "Adafactor"]
    expected = plan("bert-tiny", "pretrain", base, Setting(4, 32), capacity=parse_size("80G"))
    assert data == json.loads(json.dumps(expected.data()))
    assert data["command"] == "python -m examples.pretrain_bert --shape bert-tiny --batch 4 --length 32"
    shown = run(capsys, *words)[1]
    assert data["command"] in shown and "80G" not in shown and "Adafactor" in shown
    code, out, _ = run(capsys, *words, "--json", "--devices", "4", "--ref", "mnemosyne-small")
    assert json.loads(out)["optimizers"]["mnemosyne-small"]["state"] < data["optimizers"]["mnemosyne-base"]["state"]
    assert json.loads(out)["command"].startswith("accelerate launch --multi_gpu --num_processes 4 -m examples.")
    assert capsys.readouterr().err == ""
    code, out, err = run(capsys, *words[:-1], "1M")
    assert code == 0 and "python" not in out and "--checkpointing" in err and "16384" not in out
    # A folder is a model too.
    transformers.ViTConfig(hidden_size=48, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path)
    code, out, _ = run(capsys, str(tmp_path), "--task", "finetune", "--json")
    assert code == 0 and f"--model {tmp_path}" in json.loads(out)["command"]


def folder_with(text: str) -> Callable[[pathlib.Path], str]:
    def make(folder: pathlib.Path) -> str:
        (folder / "config.json").write_text(text)
        return str(folder)

    return make


@pytest.mark.parametrize(
    ("model", "words", "sentence", "code"),
    [
        ("bert-bse", (), "if you mean bert-base", 2),
        ("nobody/nothing", (), "pass the folder of its config.json", 2),
        (str, (), "has no config.json", 2),
        pytest.param(folder_with("{}"), (), "describes no model of transformers", 1, id="empty"),
        pytest.param(folder_with("no JSON"), (), "describes no model of transformers", 1, id="no JSON"),
        ("bert-tiny", ("--memory", "8X"), "'8X' is not a size of memory", 2),
        ("bert-tiny", ("--memory", "0G"), "'0G' is not a size of memory", 2),
        ("bert-tiny", ("--length", "513"), "reads at most 512 symbols", 2),
        ("bert-tiny", ("--task", "prompt-tune"), "its tasks are finetune, pretrain", 2),
        ("vit-base", ("--task", "bake"), "'bake' is not one of", 2),
        ("bert-tiny", ("--batch", "0"), "'--batch'", 2),
    ],
    ids=str,
)
def test_a_wrong_call_is_a_sentence(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    model: Any,
    words: tuple[str, ...],
    sentence: str,
    code: int,
) -> None:
    monkeypatch.setenv("MNEMO_OFFLINE", "1")
    found, out, err = run(capsys, model if isinstance(model, str) else model(tmp_path), "--task", "pretrain", *words)
    assert (found, out) == (code, "")
    assert err.count("\n") == 1 and sentence in err


@pytest.mark.parametrize("module", ["torch", "transformers", "peft"])
def test_a_missing_library_is_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = run(capsys, "t5-small", "--task", "prompt-tune")
    assert code == 1
    assert err == f"error: {module} is not installed; run: pip install 'mnemo-compile[recipes]'\n"
