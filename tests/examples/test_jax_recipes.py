"""The recipes in JAX: the losses of one device on many, runs that go on where they stopped, and wrong calls."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file
from transformers import T5Config, T5ForConditionalGeneration, ViTConfig, ViTForImageClassification

from examples import finetune_vit_jax, prompt_tune_t5_jax

ROOT = pathlib.Path(__file__).parents[2]
COMMON = "--steps 6 --eval-every 3 --save-every 3 --batch 8".split()
RECIPES = {"finetune_vit_jax": [], "prompt_tune_t5_jax": ["--prompt-length", "8", "--float32", "--length", "32"]}
COMMANDS = {"finetune_vit_jax": finetune_vit_jax.main, "prompt_tune_t5_jax": prompt_tune_t5_jax.main}


@pytest.fixture(scope="module")
def folder_of_cache(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("cache of recipes")


@pytest.fixture(autouse=True)
def one_cache(own_cache: pathlib.Path, folder_of_cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimizer is compiled once for all tests."""
    monkeypatch.setenv("MNEMO_CACHE", str(folder_of_cache))


def run(recipe: str, folder: pathlib.Path, *options: str, optimizer: str = "mnemosyne-base") -> list[dict[str, Any]]:
    """The metrics of a run in a process with four devices."""
    command = [sys.executable, "-m", f"examples.{recipe}", "--out", str(folder), "--optimizer", optimizer]
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "PYTHONWARNINGS": "error"}
    ran = subprocess.run(
        [*command, *COMMON, *RECIPES[recipe], *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def values(lines: list[dict[str, Any]]) -> list[float]:
    return [line[key] for line in lines for key in ("loss", "validation_loss") if key in line]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_many_devices_and_resuming_change_no_loss(tmp_path: pathlib.Path, recipe: str) -> None:
    alone = run(recipe, tmp_path / "alone", "--devices", "1")
    shared = run(recipe, tmp_path / "shared")
    assert [line["step"] for line in alone] == [1, 2, 3, 3, 4, 5, 6, 6]
    assert values(alone)[0] != values(alone)[-1]
    np.testing.assert_allclose(values(shared), values(alone), rtol=1e-3)
    before = load_file(tmp_path / "shared" / "parameters.safetensors")
    # As if it had been killed after the first checkpoint.
    shutil.rmtree(tmp_path / "shared" / "checkpoints" / "6")
    (tmp_path / "shared" / "parameters.safetensors").unlink()
    np.testing.assert_array_equal(values(run(recipe, tmp_path / "shared", "--resume")), values(shared))
    after = load_file(tmp_path / "shared" / "parameters.safetensors")
    assert {"curves.png", "run.json", "metrics.jsonl"} <= {path.name for path in (tmp_path / "shared").iterdir()}
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def tiny(recipe: str) -> Any:
    """A network of `transformers`."""
    if recipe == "finetune_vit_jax":
        sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "image_size": 8, "patch_size": 4}
        return ViTForImageClassification(ViTConfig(num_hidden_layers=1, num_attention_heads=2, **sizes))
    sizes = {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2, "num_layers": 1}
    sizes |= {"vocab_size": 260, "tie_word_embeddings": False}
    return T5ForConditionalGeneration(T5Config(feed_forward_proj="gated-gelu", **sizes))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_folder_of_transformers(tmp_path: pathlib.Path, recipe: str) -> None:
    tiny(recipe).save_pretrained(tmp_path / "model")
    lines = run(recipe, tmp_path / "run", "--model", str(tmp_path / "model"))
    assert np.isfinite(values(lines)).all()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["mnemosyne-base", "adamw:1e-3"])
def test_a_vit_learns_digits(tmp_path: pathlib.Path, optimizer: str) -> None:
    options = "--steps 200 --eval-every 50 --batch 32 --devices 1".split()
    lines = run("finetune_vit_jax", tmp_path, *options, optimizer=optimizer)
    assert lines[-1]["validation_accuracy"] > 0.3


@pytest.mark.parametrize("recipe", RECIPES)
def test_help(recipe: str) -> None:
    shown = CliRunner().invoke(COMMANDS[recipe], ["--help"])
    assert shown.exit_code == 0 and "--optimizer NAME[:RATE]" in shown.output and "--devices" in shown.output


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ("finetune_vit_jax", "--model nothing", "--model nothing is no folder"),
        ("prompt_tune_t5_jax", "--model nothing", "--model nothing is no folder"),
        ("finetune_vit_jax", "--devices 999", "more than the"),
        ("finetune_vit_jax", "--batch 5000", "pass a smaller one"),
        ("finetune_vit_jax", "--optimizer adamw", "write adamw:3e-4"),
        ("finetune_vit_jax", "--resume --optimizer adamw:1e-3", "leave --resume out"),
    ],
)
def test_a_wrong_call_leaves_nothing(tmp_path: pathlib.Path, recipe: str, arguments: str, message: str) -> None:
    out = tmp_path / "out"
    ran = CliRunner().invoke(COMMANDS[recipe], [*arguments.split(), "--out", str(out)])
    assert ran.exit_code == 2 and message in " ".join(ran.output.replace("│", " ").split()), ran.output
    assert not out.exists()


def test_a_folder_of_another_model_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    arguments = ["--model", str(tmp_path), "--out", str(tmp_path / "out")]
    for command in COMMANDS.values():
        with pytest.raises(click.UsageError, match="model of type gpt2"):
            command(arguments, standalone_mode=False)
