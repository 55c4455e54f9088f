"""A suite that is measured in seconds."""

import pathlib

import pytest

from mnemo_compile.meta.evaluation import load_suite, TaskConfig

SUITE = """
about = "Small."

[[tasks]]
name = "line"
steps = 100
family = { network = { kind = "mlp", widths = [] }, data = { kind = "iris" }, batch = 8 }

[[tasks]]
name = "again"
kind = "fine-tuning"
source = "arXiv 1234.56789"
steps = 100
family = { network = { kind = "mlp", widths = [4] }, data = { kind = "wine" }, batch = 8 }
before = { steps = 100, family = { network = { kind = "mlp", widths = [4] }, data = { kind = "wine" }, batch = 4 } }
"""


@pytest.fixture
def suite(tmp_path: pathlib.Path) -> str:
    """The path of its TOML file."""
    path = tmp_path / "small.toml"
    path.write_text(SUITE)
    return str(path)


@pytest.fixture
def line(suite: str) -> TaskConfig:
    """A linear classifier."""
    return load_suite(suite).tasks[0]


@pytest.fixture
def again(suite: str) -> TaskConfig:
    """A network that was trained before."""
    return load_suite(suite).tasks[1]
