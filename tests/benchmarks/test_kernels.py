"""What kernels cost is counted from the tables that a step uses."""

import pathlib

import pytest
import torch

import mnemo_compile as mnemo
from benchmarks.kernels import counts
from benchmarks.step import vision_transformer
from mnemo_compile.exporters.python import load_package
from mnemo_compile.exporters.torch import TorchExporter
from mnemo_compile.program import compile_cell


@pytest.mark.parametrize(
    ("model", "dtype", "moved"),
    [
        # Sums read parameter and gradient; the update reads them and two numbers of state, and writes all but one.
        ("mnemosyne-elementwise", torch.float32, 8 + 16 + 12),
        ("mnemosyne-elementwise", torch.bfloat16, 4 + 12 + 10),
        # Matrices have one number of state.
        ("mnemosyne-base", torch.float32, 8 + 12 + 8),
        # With a network, matrices have two numbers of state.
        ("mnemosyne-tiny", torch.float32, 8 + 12 + 16),
    ],
)
def test_kernels_cost_what_their_tables_say(tmp_path: pathlib.Path, model: str, dtype: torch.dtype, moved: int) -> None:
    frozen = mnemo.load(model)
    TorchExporter().emit(frozen, compile_cell(frozen.cell()), tmp_path)
    package = load_package(tmp_path / model.replace("-", "_"))
    few, many = (counts(package, vision_transformer(256, depth, 16, 1000), dtype) for depth in (2, 9))
    assert few["launches"] == many["launches"]
    assert many["launches"] - many["by torch"] <= 15
    assert (many["by torch"] > 0) == (model == "mnemosyne-tiny")
    assert moved <= many["bytes per parameter"] < 1.03 * moved
    assert many["extra MiB"] < 1
