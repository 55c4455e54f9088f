"""The Python packages run where this project, and for torch also JAX, cannot be imported."""

import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from mnemo_compile.exporters import targets
from mnemo_compile.frozen import FrozenCell

BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocker())
sys.path.insert(0, {folder!r})
"""

TORCH = """
import small_cell, torch
model = torch.nn.Linear(70, 70)
optimizer = small_cell.Mnemosyne(model.parameters(), total_steps=3)
for _ in range(3):
    model(torch.ones(2, 70)).square().sum().backward()
    optimizer.step()
print(small_cell.__version__, small_cell.DIGEST, optimizer.skipped_steps)
"""

OPTAX = """
import jax.numpy as jnp, small_cell
params = {"w": jnp.ones((70, 70))}
transformation = small_cell.mnemosyne(total_steps=3)
updates, state = transformation.update(params, transformation.init(params), params)
print(small_cell.__version__, small_cell.DIGEST, int(state.skipped))
"""


@pytest.mark.parametrize(
    ("target", "blocked", "code"),
    [
        ("torch", ["mnemo_compile", "jax", "jaxlib", "optax", "equinox"], TORCH),
        ("optax", ["mnemo_compile", "torch", "equinox"], OPTAX),
    ],
)
def test_the_package_stands_alone(
    emitted: Callable[[str], pathlib.Path], frozen: FrozenCell, target: str, blocked: list[str], code: str
) -> None:
    program = BLOCK.format(blocked=blocked, folder=str(emitted(target))) + code
    done = subprocess.run([sys.executable, "-IB", "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [frozen.version, frozen.digest, "0"]


def test_the_packages_name_neither_this_project_nor_a_folder_of_this_machine(
    emitted: Callable[[str], pathlib.Path],
) -> None:
    for path in (path for target in targets() for path in emitted(target).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert "import mnemo_compile" not in text and "from mnemo_compile" not in text
        assert str(pathlib.Path(__file__).parents[2]) not in text
