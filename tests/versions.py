"""Exports under the oldest, the newest and other versions of Python, torch and JAX, an environment for each row."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

import rich.console
import rich.table
import rich_click as click

import mnemo_compile as mnemo
from tests.interpreters import interpreters

ROOT = pathlib.Path(__file__).parent.parent
CLIENT = ROOT / "tests" / "clients" / "train_torch.py"
TESTS = ("tests/program", "tests/exporters", "tests/compiled", "tests/test_repository.py")
SHOWN = ("torch", "jax", "optax", "numpy", "onnxruntime", "safetensors")
"""Distributions whose versions the table has."""


class Row(NamedTuple):
    """An environment: a Python, and requirements. Whatever they leave open is the newest release."""

    name: str
    python: str
    torch: str
    jax: str
    ignored: tuple[str, ...] = ()
    """Beginnings of the warnings that these releases give about themselves. All other warnings are errors."""
    extra: tuple[str, ...] = ()
    """Requirements that the tests do not have elsewhere."""
    tests: tuple[str, ...] = TESTS


def pinned(distribution: str) -> str:
    """A requirement of `constraints.txt`."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"{distribution}=="))


ROWS = (
    Row(
        "oldest",
        "3.11",
        "torch==2.6.0",
        "jax==0.10.0",
        # torch 2.6 gives the first in SequentialLR, and the second in inductor.
        ("The epoch parameter in `scheduler.step()`", "Skipping serialization of skipfiles_inline_module_allowlist"),
    ),
    # torch 2.9 is the first with one setting of precision for CUDA and one for CPUs.
    Row("between", "3.12", "torch==2.9.1", "jax==0.11.0"),
    Row("pinned", "3.12", pinned("torch"), "jax"),
    # timm needs the torchvision of one version of torch.
    Row("timm", "3.11", "torch==2.12.1", "jax", extra=("timm",), tests=("tests/integrations",)),
    # torch says so of Python 3.13.0.
    Row("newest", "3.13", "torch", "jax", ("Guards may run slower on Python 3.13.0",)),
)


class Result(NamedTuple):
    """What a row found."""

    versions: dict[str, str]
    training: str
    tests: str
    verdict: str
    """passed, failed, or not installed. `package passed` if only the tests' libraries could not be installed."""
    seconds: float


class Environment:
    """The environment of a row.

    **Arguments:**

    - `row`: its versions.
    - `folder`: the folder of all environments. The output of every command is in `NAME.log` there.
    """

    def __init__(self, row: Row, folder: pathlib.Path):
        self.row = row
        self.folder = folder / row.name
        self.python = str(self.folder / ("Scripts" if sys.platform == "win32" else "bin") / "python")
        self.log = folder / f"{row.name}.log"

    def make(self) -> str:
        """Makes it, if it is not there. Returns why not, or nothing."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text("", encoding="utf-8")
        if pathlib.Path(self.python).exists():
            return ""
        found = interpreters([self.row.python])
        if not found:
            return f"Python {self.row.python} is not on this machine."
        code, _ = self.run(found[self.row.python], "-m", "venv", "--clear", str(self.folder))
        return f"Python {self.row.python} makes no environment; see {self.log}." if code else ""

    def install(self, *requirements: str) -> str:
        """Installs them in their newest releases. Returns why not, or nothing."""
        options = ("--quiet", "--disable-pip-version-check", "--upgrade", "--upgrade-strategy", "eager")
        code, output = self.run(self.python, "-m", "pip", "install", *options, *requirements)
        errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
        return f"pip: {errors[-1] if errors else f'see {self.log}'}" if code else ""

    def versions(self) -> dict[str, str]:
        """Of Python and of what is installed."""
        code = (
            "import importlib.metadata as m, json, platform; "
            "print(json.dumps({d.name: d.version for d in m.distributions()} | {'python': platform.python_version()}))"
        )
        _, output = self.run(self.python, "-c", code)
        return json.loads(output.splitlines()[-1])

    def run(self, *command: str) -> tuple[int, str]:
        """Runs a command at the root of the checkout. Returns its exit code and its output."""
        with self.log.open("a+", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            start = log.tell()
            code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT).returncode
            log.seek(start)
            return code, log.read()


def prove(row: Row, folder: pathlib.Path, package: pathlib.Path, workers: int) -> Result:
    """Makes a row's environment, trains with the exported package in it, and runs the tests of exports."""
    began = time.monotonic()
    environment = Environment(row, folder)
    # The package comes first: it must train where nothing but its own requirements is installed.
    missing = environment.make() or environment.install(row.torch, str(package))
    if missing:
        return Result({}, missing, "", "not installed", time.monotonic() - began)
    code, training = environment.run(environment.python, "-I", str(CLIENT))
    verdict = "failed" if code else "package passed"
    tests = environment.install(row.torch, row.jax, *row.extra, "--editable", ".[test]")
    if not tests:
        options = ["-q", "-n", str(workers), "--dist", "worksteal", "-m", "not slow"]
        options += [f"-Wignore:{message}" for message in row.ignored]
        failed, output = environment.run(environment.python, "-m", "pytest", *options, *row.tests)
        verdict = "failed" if code or failed else "passed"
        tests = last_line(output)
    return Result(environment.versions(), last_line(training), tests, verdict, time.monotonic() - began)


def last_line(output: str) -> str:
    """Of a command's output, without the line's decoration and its time."""
    lines = output.strip().splitlines() or [""]
    return re.sub(r" in [\d.]+s.*", "", lines[-1].strip("= "))


def table(results: dict[str, Result]) -> rich.table.Table:
    """Of all rows."""
    shown = rich.table.Table("row", "python", *SHOWN, "exported torch package", "tests of exports", "", "seconds")
    for name, result in results.items():
        versions = [result.versions.get(each, "") for each in ("python", *SHOWN)]
        shown.add_row(name, *versions, result.training, result.tests, result.verdict, f"{result.seconds:.0f}")
    return shown


@click.command()
@click.option("--only", multiple=True, type=click.Choice([row.name for row in ROWS]), help="Only this row; repeatable.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=pathlib.Path),
    default=ROOT / ".venv-versions",
    help="The folder of the environments.",
)
@click.option("--workers", type=click.IntRange(1), default=2, help="Processes of the tests.")
def main(only: Sequence[str], folder: pathlib.Path, workers: int) -> None:
    """Test exports under the oldest, the newest and other versions of Python, torch and JAX.

    Each row gets an environment of its own from the package index, which is kept for the next run. A CUDA build of
    torch takes 3 to 7 GB. The exported package trains a network where only what it requires is installed; then the
    tests of tracing and exporting run. What commands printed is in NAME.log.

    \b
    Example:
      python -m tests.versions --only oldest --only newest
    """
    folder = folder.absolute()
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as out:
        mnemo.export("mnemosyne-base", "torch", out)
        for row in ROWS:
            if not only or row.name in only:
                print(f"{row.name}: Python {row.python}, {row.torch}, {row.jax}", file=sys.stderr, flush=True)
                results[row.name] = prove(row, folder, pathlib.Path(out) / "torch", workers)
    console = rich.console.Console(width=None if sys.stdout.isatty() else 400, highlight=False, emoji=False)
    console.print(table(results))
    verdicts = {result.verdict for result in results.values()}
    # Where nothing could be installed, nothing is proved.
    sys.exit("failed" in verdicts or verdicts == {"not installed"})


if __name__ == "__main__":
    main()
