"""The page that shows how to add a target: its code exports cells that verification accepts."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "your-own-target.md"
MNEMO = ["-m", "mnemo_compile"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the page's package and its entry point, as an installation leaves them."""
    folder = tmp_path_factory.mktemp("page")
    text = PAGE.read_text(encoding="utf-8")
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        name, _, content = code.partition("\n")
        path = folder / name.removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    metadata = folder / "numpy_target-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy-target\nVersion: 1.0\n")
    (point,) = re.findall(r"^numpy = \"(.*)\"$", text, re.MULTILINE)
    (metadata / "entry_points.txt").write_text(f"[mnemo_compile.targets]\nnumpy = {point}\n")
    return folder


def run(arguments: list[str], folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnemosyne-tiny", "mnemosyne-small"])
def test_a_cell_of_the_zoo_is_exported_and_agrees(installed: pathlib.Path, name: str) -> None:
    result = run([*MNEMO, "export", name, "--target", "numpy", "--out", name, "--json"], installed)
    assert result.returncode == 0, result.stderr
    (report,) = json.loads(result.stdout)
    assert report["passed"] and report["target"] == "numpy" and 0 < report["step_error"] <= 1e-5


def test_a_primitive_that_the_target_lacks_is_refused_by_name(installed: pathlib.Path) -> None:
    code = """
import equinox as eqx, jax, jax.numpy as jnp, types
from mnemo_compile.cell import AbstractCell, MemorySlot
from mnemo_compile.exporters import exporter_of
from mnemo_compile.program import compile_cell

class Erf(AbstractCell):
    config: object = eqx.field(static=True, default=None)
    chunk_length: int = eqx.field(static=True, default=8)
    sample_chunks: int = eqx.field(static=True, default=2)
    memory_slots: tuple = eqx.field(static=True, default=())
    def measure(self, param, grad): return {"sum": jnp.sum(grad, axis=1)}
    def decode(self, chunks, context): return jax.lax.erf(chunks.grad), {}

exporter_of("numpy").text(types.SimpleNamespace(name="x", version="1.0.0", digest="0"), compile_cell(Erf()))
"""
    (installed / "refused.py").write_text(code, encoding="utf-8")
    result = run(["refused.py"], installed)
    assert result.returncode == 1
    assert "the primitive erf (refused.py:" in result.stderr and "numpy" in result.stderr
