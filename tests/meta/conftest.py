"""Meta-training runs small enough to be tried many times."""

import pathlib

import pytest

CONFIG = """
minutes = 1
checkpoint_seconds = 0

[cell]
kind = "mnemosyne"
token = 2
meta_tokens = 1
random_features = 2
context = 2
hidden = 2

[inner]
tasks = 2
truncation = 2
shortest = 4
longest = 8

[outer]
validate_every = 5

[[families]]
network = { kind = "mlp", widths = [3] }
data = { kind = "digits" }
batch = 4

[validation]
tasks = 1
steps = 4

[[validation.families]]
network = { kind = "mlp", widths = [4] }
data = { kind = "digits" }
batch = 4
"""

ADAM = """
minutes = 1
checkpoint_seconds = 0
cell = {kind = "adam"}
inner = {tasks = 2, truncation = 2, shortest = 4, longest = 8}
outer = {validate_every = 100}
families = [{kind = "quadratic", dimension = 2, rotated = false}]
validation = {tasks = 1, steps = 4, families = [{kind = "quadratic", dimension = 3, rotated = false}]}
"""
"""A cell that compiles in a tenth of the time, for tests that are not about the cell."""


@pytest.fixture
def config(tmp_path: pathlib.Path) -> pathlib.Path:
    """The path of its TOML file."""
    path = tmp_path / "small.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def adam(tmp_path: pathlib.Path) -> pathlib.Path:
    """The path of the TOML file of a run whose cell is Adam."""
    path = tmp_path / "adam.toml"
    path.write_text(ADAM)
    return path
