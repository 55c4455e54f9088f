"""A wrong input is refused in one sentence, with exit code 1 or 2, and nothing is written."""

import pathlib
import re
from typing import Any

import numpy as np
import pytest
import transformers
from matplotlib.image import imsave

from examples import finetune_text, finetune_vit, pretrain_bert, pretrain_t5, pretrain_vit, prompt_tune_t5
from examples.recipes import train_tokenizer
from tests.examples.conftest import Recipe

COMMANDS = {
    "finetune_text": finetune_text.main,
    "finetune_vit": finetune_vit.main,
    "pretrain_bert": pretrain_bert.main,
    "pretrain_t5": pretrain_t5.main,
    "pretrain_vit": pretrain_vit.main,
    "prompt_tune_t5": prompt_tune_t5.main,
}


@pytest.fixture
def inputs(tmp_path: pathlib.Path) -> pathlib.Path:
    """Files and folders that are not what a recipe expects, among some that are."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "pairs.jsonl").write_text('{"input": "a", "target": "b"}\n{"input": "c", "target": "d"}\n')
    (tmp_path / "bad.jsonl").write_text('{"input": "a", "target": "b"}\n{"input": "c"}\n')
    (tmp_path / "no.jsonl").write_text('{"text": "a", "label": "b"}\nno JSON\n')
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "short.txt").write_text("short")
    for number in range(4):
        folder = tmp_path / "images" / "cat"
        folder.mkdir(parents=True, exist_ok=True)
        imsave(folder / f"{number}.png", np.zeros((20, 30)))
    broken = tmp_path / "broken" / "cat"
    broken.mkdir(parents=True)
    for number in range(4):
        (broken / f"{number}.png").write_bytes(b"no image")
    small: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    transformers.BertModel(transformers.BertConfig(vocab_size=300, **small)).save_pretrained(tmp_path / "bert")
    tokenizer = train_tokenizer(["a b"], 300, ["<pad>", "</s>"], pad_token="<pad>", model_max_length=64)
    config = transformers.T5Config(vocab_size=300, d_model=8, d_ff=8, num_layers=1, num_heads=1, d_kv=8)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    for name in ("bert", "t5"):
        tokenizer.save_pretrained(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "arguments", "code", "message"),
    [
        ("finetune_vit", "--model google/vit-base-patch16-224", 1, "pass the folder of a checkpoint to --model, or a"),
        ("finetune_vit", "--model INPUTS/empty", 1, "empty cannot be loaded"),
        ("finetune_vit", "--model INPUTS/bert", 2, "holds a model of the type bert, and no ViT"),
        ("finetune_vit", "--shape vit-tiny-16 --model INPUTS/bert", 2, "exclude each other"),
        ("finetune_vit", "--shape vit-tiny-16 --data cifar10", 1, "pass a folder of images to --images"),
        ("finetune_vit", "--shape vit-tiny-16 --images INPUTS/empty", 2, "empty has no images; put them into"),
        (
            "finetune_vit",
            "--shape vit-tiny-16 --images INPUTS/broken --optimizer adamw",
            1,
            r"cat/\d.png cannot be read",
        ),
        ("finetune_vit", "--shape vit-tiny-16 --train 5", 2, "more layers than the 4 of the model"),
        ("finetune_vit", "--shape vit-tiny-16 --train some", 2, "pass all, head, or a number of last layers"),
        ("finetune_vit", "--shape vit-tiny-16 --optimizer adamv", 2, "adamv is neither one of mnemosyne, adafactor,"),
        ("finetune_vit", "--shape vit-tiny-16 --optimizer adamw:x", 2, "adamw:x has a rate that is no number"),
        ("finetune_vit", "--shape vit-tiny-16 --optimizer adamw:1,2", 2, "pass them to --compare"),
        ("finetune_vit", "--shape vit-tiny-16 --batch 9 --accumulate 2", 2, "pass an --accumulate that divides it"),
        ("finetune_vit", "--shape vit-tiny-16 --optimizer adamw --shard", 2, "start them with accelerate launch or"),
        ("finetune_text", "--model bert-base-uncased --texts INPUTS/texts.jsonl", 2, "does not exist"),
        (
            "finetune_text",
            "--model INPUTS/bert --texts INPUTS/no.jsonl",
            1,
            r"no.jsonl, line 2 is not what .* \{\"text\"",
        ),
        ("pretrain_vit", "--images INPUTS/empty", 2, "empty has no images"),
        ("pretrain_bert", "--text INPUTS/empty", 2, r"empty has no files that match \*.txt; pass another --pattern"),
        ("pretrain_bert", "--text INPUTS/binary.txt", 1, "binary.txt is no text in UTF-8"),
        ("pretrain_bert", "--text INPUTS/short.txt", 2, "too few for two blocks"),
        ("pretrain_t5", "--text INPUTS/short.txt", 2, "too few for two blocks"),
        (
            "prompt_tune_t5",
            "--model INPUTS/t5 --texts INPUTS/bad.jsonl",
            1,
            "bad.jsonl, line 2 is not what is",
        ),
        (
            "prompt_tune_t5",
            "--model google/t5-v1_1-small --texts INPUTS/pairs.jsonl",
            1,
            "pass the folder of a checkpoint",
        ),
        ("prompt_tune_t5", "--model INPUTS/bert --texts INPUTS/pairs.jsonl", 2, "holds a model of the type bert"),
        ("prompt_tune_t5", "--model INPUTS/t5 --texts INPUTS/pairs.jsonl --prompt 70", 2, "the model takes at most 64"),
    ],
)
def test_wrong_input_is_refused(
    inputs: pathlib.Path, recipe: Recipe, name: str, arguments: str, code: int, message: str
) -> None:
    result = recipe(COMMANDS[name], *arguments.replace("INPUTS", str(inputs)).split())
    assert result.exit_code == code, result.output
    error = result.stderr.split("Error: ")[1]
    assert re.search(message, error.replace("\n", " ")), error
    assert not list((inputs / "out").glob("checkpoints/*"))


def test_a_run_begins_once(recipe: Recipe) -> None:
    arguments = ("--steps", "4", "--batch", "4", "--count", "20", "--optimizer", "adamw")
    first = recipe(pretrain_vit.main, *arguments)
    assert first.exit_code == 0
    again = recipe(pretrain_vit.main, *arguments)
    assert again.exit_code == 2
    assert "pass --resume to go on with it, or another --out" in again.stderr
    resumed = recipe(pretrain_vit.main, *arguments, "--resume")
    assert (resumed.exit_code, resumed.stdout) == (0, first.stdout)
    other = recipe(pretrain_vit.main, *arguments, "--resume", "--shape", "vit-base")
    assert other.exit_code == 2
    assert "holds a checkpoint of another run: option shape is vit-tiny-16 there and vit-base here" in other.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_each_recipe_has_help(recipe: Recipe, name: str) -> None:
    result = recipe(COMMANDS[name], "--help")
    assert result.exit_code == 0
    assert f"python -m examples.{name}" in result.stdout
