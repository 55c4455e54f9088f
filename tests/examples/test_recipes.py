"""Each recipe trains, from the command line of a user to the folder of results, at the smallest size."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import peft
import pytest
import transformers
from matplotlib.image import imsave

from examples import finetune_text, finetune_vit, pretrain_bert, pretrain_t5, pretrain_vit, prompt_tune_t5
from examples.recipes._run import read_metrics
from tests.examples.conftest import Recipe

pytestmark = [
    pytest.mark.slow,
    # peft 0.21 asks for what transformers 5.24 calls by another name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
STEPS = ("--steps", "6", "--batch", "4", "--eval-every", "3", "--save-every", "2")


@pytest.fixture(autouse=True)
def shared_cache(cache: pathlib.Path, own_cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNEMO_CACHE", str(cache))


@pytest.fixture
def text(tmp_path: pathlib.Path) -> str:
    """A file of text with a pattern in it."""
    file = tmp_path / "text.txt"
    words = np.random.default_rng(0).choice(["one", "two", "three", "four"], 4000)
    file.write_text(" ".join(f"{word} and {word};" for word in words))
    return str(file)


def model_in(out: pathlib.Path) -> str:
    """The folder of the trained network, after a look at the rest."""
    steps = [line["step"] for line in read_metrics(out / "metrics.jsonl") if "validation_loss" in line]
    assert steps == [3, 6]
    assert np.isfinite(json.loads((out / "result.json").read_text())["loss"])
    assert (out / "curve.png").stat().st_size > 1000
    assert not (out / "checkpoints").exists()
    return str(out / "model")


def test_a_vit_is_trained_and_fine_tuned(recipe: Recipe, tmp_path: pathlib.Path) -> None:
    out, first = tmp_path / "out", tmp_path / "first"
    assert recipe(pretrain_vit.main, "--count", "50", *STEPS).exit_code == 0
    model_in(out)
    out.rename(first)
    model = str(first / "model")
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(5):
            pixels = np.random.default_rng(number).random((20, 30, 3))
            imsave(tmp_path / "images" / name / f"{number}.png", pixels)
    images = ("--images", str(tmp_path / "images"), "--augment")
    for number, more in enumerate([(), ("--train", "head"), ("--train", "2", *images), ("--lora", "2", *images)]):
        result = recipe(finetune_vit.main, "--model", model, *more, *STEPS)
        assert result.exit_code == 0, result.output
        kind = peft.PeftModel if "--lora" in more else transformers.ViTForImageClassification
        if kind is transformers.ViTForImageClassification:
            kind.from_pretrained(model_in(out))
        out.rename(tmp_path / str(number))


def test_a_bert_is_trained_and_fine_tuned(recipe: Recipe, tmp_path: pathlib.Path, text: str) -> None:
    options = ("--length", "16", "--vocabulary", "300", *STEPS)
    assert recipe(pretrain_bert.main, "--text", text, *options).exit_code == 0
    (tmp_path / "out").rename(tmp_path / "first")
    model = str(tmp_path / "first" / "model")
    transformers.BertForMaskedLM.from_pretrained(model)
    lines = [{"text": f"one and {word};", "label": word} for word in ("two", "three") for _ in range(10)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    texts = ("--texts", str(tmp_path / "texts.jsonl"), "--length", "16")
    result = recipe(finetune_text.main, "--model", model, *texts, "--accumulate", "2", *STEPS)
    assert result.exit_code == 0, result.output
    transformers.BertForSequenceClassification.from_pretrained(model_in(tmp_path / "out"))


def test_minilm_learns_topics(recipe: Recipe, tmp_path: pathlib.Path) -> None:
    assert recipe(finetune_text.main, "--train", "1", *STEPS).exit_code == 0
    model_in(tmp_path / "out")


def test_a_t5_is_trained_and_prompted(recipe: Recipe, tmp_path: pathlib.Path, text: str) -> None:
    result = recipe(pretrain_t5.main, "--text", text, "--length", "16", "--vocabulary", "500", *STEPS)
    assert result.exit_code == 0, result.output
    (tmp_path / "out").rename(tmp_path / "first")
    model = str(tmp_path / "first" / "model")
    lines = [{"input": f"one and {word};", "target": word} for word in ("two", "three") for _ in range(10)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pairs = ("--texts", str(tmp_path / "pairs.jsonl"), "--length", "16", "--prompt", "5")
    result = recipe(prompt_tune_t5.main, "--model", model, *pairs, "--bfloat16", "--gradient-checkpointing", *STEPS)
    assert result.exit_code == 0, result.output
    prompt = model_in(tmp_path / "out")
    assert sum(file.stat().st_size for file in pathlib.Path(prompt).iterdir()) < 50_000
    frozen = transformers.T5ForConditionalGeneration.from_pretrained(model)
    peft.PeftModel.from_pretrained(frozen, prompt)
    options = ("--model", model, *pairs, "--bfloat16", "--shard", *STEPS, "--out", str(tmp_path / "two"))
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    subprocess.run([*launcher, "-m", "examples.prompt_tune_t5", *options], check=True)
    peft.PeftModel.from_pretrained(frozen, model_in(tmp_path / "two"))


@pytest.mark.parametrize("launcher", ["accelerate.commands.launch", "torch.distributed.run"])
@pytest.mark.parametrize("shard", [(), ("--shard",)])
def test_two_processes_take_the_steps_of_one(
    recipe: Recipe, tmp_path: pathlib.Path, launcher: str, shard: tuple[str, ...]
) -> None:
    options = ("--count", "100", *STEPS)
    assert recipe(pretrain_vit.main, *options).exit_code == 0
    start = {
        # Its launcher for CPUs needs MPI, and the other one starts processes through torchrun.
        "accelerate.commands.launch": ("--multi_gpu", "--num_processes=2", "--num_machines=1"),
        "torch.distributed.run": ("--nproc-per-node", "2"),
    }[launcher]
    two = tmp_path / "two"
    module = ("-m", "examples.pretrain_vit", *options, *shard, "--out", str(two))
    subprocess.run([sys.executable, "-m", launcher, *start, *module], check=True)
    curves = [read_metrics(folder / "metrics.jsonl") for folder in (tmp_path / "out", two)]
    assert len(curves[0]) == len(curves[1]) == 8
    for one, other in zip(*curves, strict=True):
        values = [[value for name, value in line.items() if name != "seconds"] for line in (one, other)]
        np.testing.assert_allclose(values[0], values[1], rtol=1e-4)
    transformers.ViTForImageClassification.from_pretrained(two / "model")
