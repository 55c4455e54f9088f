"""The measurements of large networks run at tiny sizes, with an exported package and without this one."""

import json
import pathlib
import subprocess
import sys

import pytest

import mnemo_compile as mnemo
from mnemo_compile.exporters.torch import TorchExporter
from mnemo_compile.program import compile_cell

ROOT = pathlib.Path(__file__).parents[2]
BLOCKED = """
import runpy, sys
sys.modules["mnemo_compile"] = None
sys.argv[0] = "benchmarks.gpu"
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""


def test_every_network(tmp_path: pathlib.Path) -> None:
    frozen = mnemo.load("mnemosyne-base")
    (tmp_path / "package").mkdir()
    TorchExporter().emit(frozen, compile_cell(frozen.cell()), tmp_path / "package")
    command = [sys.executable, "-c", BLOCKED, "all", str(tmp_path / "package"), "--out", str(tmp_path / "out")]
    ran = subprocess.run([*command, "--tiny", "--steps", "2"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 6
    for name in ("vit-huge", "t5-xxl", "bert-large"):
        results = json.loads((tmp_path / "out" / f"{name}.json").read_text(encoding="utf-8"))
        assert [each["optimizer"] for each in results["optimizers"]] == ["mnemosyne", "AdamW, fused"]
        for each in results["optimizers"]:
            assert each["steps"] == 2 and 0 < each["optimizer_share"] < 1
            assert each["trained_parameters"] == (320 if name == "t5-xxl" else each["all_parameters"])
            assert each["last_loss"] != each["first_loss"]


def test_real_sizes_need_a_gpu(tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, "-m", "benchmarks.gpu", "all", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1 and "pass --tiny" in ran.stderr


def test_a_folder_of_several_packages(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("torch")
    from benchmarks.gpu._measure import load_one

    for name in ("first_of_two", "second_of_two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("class Mnemosyne: pass", encoding="utf-8")
    assert load_one(tmp_path / "first_of_two").__module__ == "first_of_two"
    with pytest.raises(SystemExit, match="pass the folder of one: first_of_two, second_of_two"):
        load_one(tmp_path)
