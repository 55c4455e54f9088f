"""What holds of the whole checkout: every file is checked, and every dependency is needed and named."""

import ast
import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator

from mnemo_compile import _entry_points
from mnemo_compile._version import DISTRIBUTION
from mnemo_compile.cli import _doctor

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PARTS = {"pydantic_core": "pydantic"}
"""Distributions that belong to another one, which installs them."""


def python_files(*suffixes: str) -> Iterator[pathlib.Path]:
    """The Python files of the checkout, without those that git ignores and without the links at the root."""
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()}
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name[0] != "." and name not in ignored]
        yield from (pathlib.Path(folder, name) for name in files if name.endswith(suffixes))


def imported_modules(files: Iterable[pathlib.Path]) -> set[str]:
    """The first parts of the names of all modules that these files import, without Python's own."""
    names: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
                names.add(node.module)
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names


def normal(distribution: str) -> str:
    """The name of a distribution as registries compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def distributions(modules: Iterable[str]) -> set[str]:
    """The distributions that install these modules."""
    owners = importlib.metadata.packages_distributions()
    return {normal(PARTS.get(owner, owner)) for module in modules for owner in owners.get(module, [module])}


def named(requirements: Iterable[str]) -> set[str]:
    """The distributions of requirements such as `jax>=0.10`."""
    return {normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in requirements}


def in_package(file: pathlib.Path) -> bool:
    return file.is_relative_to(ROOT / "mnemo_compile")


def test_every_file_is_type_checked() -> None:
    command = [sys.executable, "-m", "basedpyright", "--verbose"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as checker:
        assert checker.stdout is not None
        # It counts the files first, and the check itself is `make check`.
        counts = (re.match(r"Found (\d+) source files", line) for line in checker.stdout)
        count = next((int(match[1]) for match in counts if match), None)
        checker.kill()
    assert count == sum(1 for _ in python_files(".py", ".pyi"))


def test_every_file_is_linted() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--show-files"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    linted = {pathlib.Path(line) for line in shown.splitlines()}
    assert {file for file in linted if file.suffix != ".toml"} == set(python_files(".py", ".pyi"))


def test_each_dependency_is_imported_by_the_package_and_each_import_is_a_dependency() -> None:
    imported = distributions(imported_modules(filter(in_package, python_files(".py"))))
    extras = PROJECT["optional-dependencies"]
    assert imported - named([*extras["torch"], *extras["recipes"]]) == named(PROJECT["dependencies"])
    assert named(extras["torch"]) <= imported


def test_everything_else_imports_what_the_tests_install() -> None:
    files = (file for file in python_files(".py") if not in_package(file))
    ours = {path.name for path in ROOT.iterdir()}
    extras = PROJECT["optional-dependencies"]
    installed = named([*PROJECT["dependencies"], *extras["torch"], *extras["recipes"], *extras["test"]])
    imported = distributions(imported_modules(files) - ours)
    assert imported <= installed
    assert named(extras["recipes"]) - {DISTRIBUTION} <= imported


def test_doctor_knows_no_library_and_no_extra_but_those_of_the_project() -> None:
    # jaxlib comes with jax, in a version of its own.
    assert named(_doctor.LIBRARIES) <= named(PROJECT["dependencies"]) | {"jaxlib"}
    extras = {name: named(requirements) for name, requirements in PROJECT["optional-dependencies"].items()}
    assert {name: named(names) for name, names in _doctor.EXTRAS.items()} == {
        name: names - {DISTRIBUTION} for name, names in extras.items() if name != "test"
    }


def test_the_command_line_offers_the_targets_of_the_project() -> None:
    assert set(_entry_points.names(_entry_points.TARGETS)) >= PROJECT["entry-points"]["mnemo_compile.targets"].keys()
