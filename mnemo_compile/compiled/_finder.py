"""Finds the module of a package: in the cache, else it is made."""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import pathlib
from types import ModuleType
from typing import Any

from .._cache import cache_folder
from .._packages import package_spec
from .._refs import Source, source_of
from ..errors import MnemoError
from ..frozen import Identity, MANIFEST_FILE, read_identity
from ._address import Address, address_of, parse_module
from ._make import make
from ._store import place, read_package, RECORD

_folders: dict[str, pathlib.Path] = {}
"""The folder of each module that this process has found or made."""
_addresses: dict[tuple[str, Identity], Address] = {}
"""The address of each package that this process has asked for by its cell."""


def package_of(target: str, source: Source) -> ModuleType:
    """The package of a cell, imported.

    **Arguments:**

    - `target`: `torch` or `optax`.
    - `source`: where the cell comes from. It is loaded only if the cache lacks the package.

    **Returns:**

    The module. Raises `MnemoError` if the package has to be made and cannot be.
    """
    identity = source.identify()
    if (target, identity) not in _addresses:
        address = address_of(target, identity)
        if address.module not in _folders:
            folder = place(address)
            if read_package(folder) is None:
                address, folder = make(target, identity, source.load)
            _folders[address.module] = folder
        _addresses[target, identity] = address
    return importlib.import_module(_addresses[target, identity].module)


class Finder(importlib.abc.MetaPathFinder):
    """Finds packages by the names of their modules, as unpickling does."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """The specification of a package's module, or None if the name is not that of one.

        Raises `ImportError` if the cache lacks the package and it cannot be made.
        """
        address = parse_module(fullname)
        if address is None:
            return None
        if fullname not in _folders:
            _folders[fullname] = _found(address)
        return package_spec(fullname, _folders[fullname] / address.package)


def _found(address: Address) -> pathlib.Path:
    """The folder of a package of which only the address is known."""
    if read_package(place(address)) is not None:
        return place(address)
    for folder in (record.parent for record in address.folder.glob(f"*/{RECORD}")):
        document = read_package(folder)
        if document is not None and not document.digest.startswith(address.digest):
            # The address is that of the content, so this is the package, whatever compiler made it.
            return folder
    source = _source(address)
    if source is None:
        raise ImportError(
            f"{address.stem} is not in the cache {cache_folder()}, and the zoo has no {address.name}@{address.version} "
            f"with its digest; call mnemo_compile.to_{address.target} with that cell before",
            name=address.module,
        )
    try:
        return make(address.target, source.identify(), source.load)[1]
    except MnemoError as error:
        raise ImportError(str(error), name=address.module) from error


def _source(address: Address) -> Source | None:
    """The cell with an address: from a damaged package or one by another compiler, which hold its bundle, or from the
    zoo."""
    for manifest in address.folder.glob(f"*/*/{MANIFEST_FILE}"):
        with contextlib.suppress(MnemoError):
            if address_of(address.target, read_identity(manifest.parent)) == address:
                return source_of(manifest.parent)
    with contextlib.suppress(MnemoError):
        source = source_of(f"{address.name}@{address.version}")
        if address_of(address.target, source.identify()) == address:
            return source
    return None
