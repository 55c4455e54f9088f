"""Loads an exported package without writing into its folder."""

import importlib.util
import itertools
import pathlib
import sys
from types import ModuleType

from ..._packages import package_spec

_loaded = itertools.count()


def load_package(package: pathlib.Path) -> ModuleType:
    """Imports a package from its folder under a unique name, without writing bytecode into the folder."""
    spec = package_spec(f"_mnemo_{package.name}_{next(_loaded)}", package)
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
