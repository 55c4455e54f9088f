"""The command line as a process: what it imports, and how it ends when the world fails it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

HEAVY = ("jax", "jaxlib", "numpy", "torch", "onnx", "onnxruntime", "equinox", "optax", "sklearn")


def run(*arguments: str, code: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m mnemo_compile` or a piece of code."""
    start = ["-m", "mnemo_compile"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *start, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=120,
    )


@pytest.mark.parametrize(
    "code",
    [
        "import mnemo_compile; mnemo_compile.__version__; dir(mnemo_compile)",
        "from mnemo_compile.cli import main; main(['--help'])",
        "from mnemo_compile.cli import main; main(['export', '--help'])",
        "from mnemo_compile.cli import main; main(['export', 'a', '--target', 'b', '--out', 'c'])",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    result = run(code=f"{code}\nimport sys; print(*sorted(sys.modules), file=sys.stderr)")
    assert result.returncode == 0, result.stderr
    assert not set(HEAVY) & set(result.stderr.split())


def test_the_front_has_what_it_promises() -> None:
    code = (
        "import mnemo_compile as mnemo\n"
        "assert {'load', 'to_torch', 'to_optax', 'export', 'FrozenCell', '__version__'} <= set(dir(mnemo))\n"
        "assert mnemo.FrozenCell.__name__ == 'FrozenCell'\n"
        "assert all(callable(getattr(mnemo, name)) for name in ('load', 'to_torch', 'to_optax', 'export'))\n"
        "try:\n    mnemo.lode\n"
        "except AttributeError as error:\n    assert 'lode' in str(error)\n"
    )
    result = run(code=code)
    assert result.returncode == 0, result.stderr


def test_load_from_python(bundle: pathlib.Path) -> None:
    code = "import sys, mnemo_compile as mnemo; print(mnemo.load(sys.argv[1]).name)"
    assert run(str(bundle), code=code).stdout == "small-cell\n"


def test_data_on_stdout_and_nothing_else(bundle: pathlib.Path) -> None:
    result = run("inspect", str(bundle), "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["name"] == "small-cell"
    assert result.stderr == ""


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_no_colour_where_that_is_not_a_terminal(bundle: pathlib.Path, environment: dict[str, str]) -> None:
    result = run("inspect", str(bundle), **environment)
    assert result.returncode == 0
    assert "\x1b" not in result.stdout + result.stderr


def test_a_full_disk_behind_stdout(bundle: pathlib.Path) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "mnemo_compile", "inspect", str(bundle), "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == "error: No space left on device; free some space and try again\n"


def test_a_reader_that_goes_away(bundle: pathlib.Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        result = subprocess.run(
            [sys.executable, "-m", "mnemo_compile", "inspect", str(bundle), "--json"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == ""


def test_an_extra_that_is_missing(bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from mnemo_compile.cli import main\n"
        "sys.exit(main(['export', sys.argv[1], '--target', 'torch', '--out', sys.argv[2]]))\n"
    )
    result = run(str(bundle), str(tmp_path / "out"), code=code)
    assert result.returncode == 1
    assert result.stderr == "error: torch is not installed; run: pip install 'mnemo-compile[torch]'\n"
    assert not (tmp_path / "out").exists()
