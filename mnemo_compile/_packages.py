"""Imports exported Python packages from their folders, under names of their own."""

import importlib.machinery
import importlib.util
import pathlib
import sys
from types import ModuleType


class _Loader(importlib.machinery.SourceFileLoader):
    """Imports a package without writing bytecode into its folder, which holds what was verified and nothing else."""

    def exec_module(self, module: ModuleType) -> None:
        writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            super().exec_module(module)
        finally:
            sys.dont_write_bytecode = writes


def package_spec(name: str, folder: pathlib.Path) -> importlib.machinery.ModuleSpec:
    """The specification with which Python imports the package in a folder.

    **Arguments:**

    - `name`: the full name of the module.
    - `folder`: the folder of the package.
    """
    file = folder / "__init__.py"
    spec = importlib.util.spec_from_file_location(
        name, file, loader=_Loader(name, str(file)), submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    return spec
