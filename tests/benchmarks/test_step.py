"""Every measurement of a step on a GPU runs at tiny sizes on a CPU, from exported packages and one file alone."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest

import mnemo_compile as mnemo
from mnemo_compile.exporters.torch import TorchExporter
from mnemo_compile.program import compile_cell

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "step_gpu.py"
CELLS = ("mnemosyne-base", "mnemosyne-elementwise")
CRASH = """
import os
class Mnemosyne:
    def __init__(self, *arguments, **options):
        os._exit(3)
"""
HANG = CRASH.replace("import os", "import time").replace("os._exit(3)", "time.sleep(1000)")


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("exports")
    for cell in CELLS:
        frozen = mnemo.load(cell)
        TorchExporter().emit(frozen, compile_cell(frozen.cell()), folder)
    return folder


def run(command: list[str], cwd: pathlib.Path, out: pathlib.Path, *arguments: str) -> tuple[Any, Any]:
    """The finished process, and the report that it wrote."""
    command = [*command, "--device", "cpu", "--tiny", "--out", str(out), *arguments]
    # Triton's interpreter would take minutes for kernels.
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=environment)
    return ran, json.loads(out.read_text(encoding="utf-8"))


def of_kind(report: Any, kind: str) -> list[Any]:
    return [each for each in report["records"] if each.get("kind") == kind]


def test_every_part(exports: pathlib.Path, tmp_path: pathlib.Path) -> None:
    # A copy in another folder sees nothing of the checkout.
    shutil.copy(SCRIPT, tmp_path)
    shutil.copytree(exports, tmp_path / "torch")
    alone = "import runpy, sys; sys.modules['mnemo_compile'] = None; runpy.run_path('step_gpu.py', run_name='__main__')"
    ran, report = run([sys.executable, "-c", alone], tmp_path, tmp_path / "out.json", "--exports", "torch")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert not of_kind(report, "failure") and not of_kind(report, "skipped")
    assert all(each["agrees"] for each in of_kind(report, "agreement"))
    assert {(each["name"]) for each in of_kind(report, "agreement")} >= {"elementwise, float32", "base, bfloat16"}
    times = {(each["network"], each["dtype"], each["form"]) for each in of_kind(report, "time")}
    for network in ("ViT-B/16", "ViT-H/14", "GPT-2-medium", "1,000 tiny tensors"):
        for form in ("elementwise", "base", "AdamW, fused", "AdamW, foreach", "Muon, AdamW"):
            assert (network, "float32", form) in times
    assert ("ViT-B/16", "bfloat16", "elementwise") in times
    assert all(0 < each["share"] < 1 for each in of_kind(report, "training"))
    assert len(of_kind(report, "launches")) == 5 and len(of_kind(report, "memory")) == 10
    lines = ran.stdout.splitlines()
    for figure in report["figures"]:
        # The memory of a CPU is not counted.
        assert figure["back_to_back"] is not None or "memory" in figure["name"]
        assert any(line.startswith(figure["name"]) for line in lines)


@pytest.mark.parametrize(
    "source, reason",
    [(CRASH, "exit code 3"), pytest.param(HANG, "took too long", marks=pytest.mark.slow)],
    ids=["crash", "hang"],
)
def test_a_part_that_ends_its_process_leaves_the_rest(
    exports: pathlib.Path, tmp_path: pathlib.Path, source: str, reason: str
) -> None:
    folder = tmp_path / "torch"
    shutil.copytree(exports, folder)
    (folder / "mnemosyne_other").mkdir()
    (folder / "mnemosyne_other" / "__init__.py").write_text(source, encoding="utf-8")
    options = ["--exports", str(folder), "--minutes", "1", "--parts", "prompt", "packages", "ceilings"]
    ran, report = run([sys.executable, "-m", "benchmarks.step"], ROOT, tmp_path / "out.json", *options)
    assert ran.returncode == 1
    (failure,) = of_kind(report, "failure")
    assert failure["name"] == "packages" and reason in ran.stdout
    assert of_kind(report, "time") and of_kind(report, "ceilings")


def test_no_time(exports: pathlib.Path, tmp_path: pathlib.Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "step.py")]
    ran, report = run(command, tmp_path, tmp_path / "out.json", "--exports", str(exports), "--minutes", "0")
    assert ran.returncode == 0 and "no time is left: ceilings, agreement, vit-b" in ran.stdout
    assert [each["kind"] for each in report["records"]] == ["skipped"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--device", "cpu"], "pass --tiny as well"),
        (["--device", "cpu", "--tiny", "--out", "no-such-folder/out.json"], "the folder of --out"),
        (["--device", "cpu", "--tiny"], "mnemo export mnemosyne-elementwise --target torch --out build"),
    ],
)
def test_wrong_calls(tmp_path: pathlib.Path, arguments: list[str], message: str) -> None:
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), "--exports", str(tmp_path), *arguments], capture_output=True, text=True
    )
    assert ran.returncode == 1 and message in ran.stderr and len(ran.stderr.splitlines()) == 1
