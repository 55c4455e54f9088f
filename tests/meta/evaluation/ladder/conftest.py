"""A ladder that is measured in seconds."""

import pathlib

import pytest

from mnemo_compile.cell import cell_config
from mnemo_compile.frozen import freeze, FrozenCell
from mnemo_compile.meta.evaluation.ladder import Ladder, load_ladder

LADDER = """
about = "Small."

[networks.line]
steps = 100
family = { network = { kind = "mlp", widths = [] }, data = { kind = "iris" }, batch = 8 }

[networks.text]
steps = 100
family = { network = { kind = "transformer", width = 4, heads = 1 }, data = { kind = "bytes", places = 4 }, batch = 2 }

[[rungs]]
name = "line"
network = "line"
half = "choose"
seed = 1

[[rungs]]
name = "line-wide"
network = "line"
axis = "width"
half = "report"
seed = 2
change = { network = { widths = [6] } }

[[rungs]]
name = "text"
network = "text"
half = "report"
seed = 3
"""


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    """Of its TOML file."""
    path = tmp_path / "small-ladder.toml"
    path.write_text(LADDER)
    return path


@pytest.fixture
def ladder(path: pathlib.Path) -> Ladder:
    return load_ladder(str(path))


@pytest.fixture
def adam() -> FrozenCell:
    return freeze(cell_config({"kind": "adam"}).build(), name="plain-adam", version="1.0.0")
