"""Loads an exported package without writing into its folder."""

import importlib.util
import itertools
import pathlib
import sys
from types import ModuleType

_loaded = itertools.count()


def load_package(package: pathlib.Path) -> ModuleType:
    """Imports a package from its folder under a unique name, without writing bytecode into the folder."""
    name = f"_mnemo_{package.name}_{next(_loaded)}"
    spec = importlib.util.spec_from_file_location(
        name, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.dont_write_bytecode = writes
    return module
