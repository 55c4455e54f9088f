"""Addresses: names of modules and folders in the cache that say what a package is."""

import pathlib
import re
from typing import NamedTuple

from .._cache import cache_folder
from ..frozen import Identity

DIGITS = 16
"""The digits of a digest that are part of an address."""
_STEM = re.compile(
    rf"(?P<target>torch|optax)_(?P<package>[a-z][a-z0-9_]*)_(?P<version>\d+_\d+_\d+)_(?P<digest>[0-9a-f]{{{DIGITS}}})",
    re.ASCII,
)


class Address(NamedTuple):
    """The address of a package."""

    target: str
    name: str
    """The name of the cell."""
    version: str
    digest: str
    """The first digits of the cell's digest. For a cell whose code is not part of mnemo-compile, those of a digest of
    the package, because other code may come with the same cell."""

    @property
    def package(self) -> str:
        """The name of the package in its folder."""
        return Identity(*self[1:]).package

    @property
    def stem(self) -> str:
        """The last part of the module's name."""
        return f"{self.target}_{self.package}_{self.version.replace('.', '_')}_{self.digest}"

    @property
    def module(self) -> str:
        """The full name of the module."""
        return f"{__package__}.{self.stem}"

    @property
    def folder(self) -> pathlib.Path:
        """The folder in the cache that holds a folder for each compiler that made this package."""
        # Absolute, because weights are read when they are first needed, maybe from another working directory.
        return (packages_folder() / self.stem).absolute()


def packages_folder() -> pathlib.Path:
    """The folder of all packages in the cache."""
    return cache_folder() / "packages"


def address_of(target: str, identity: Identity) -> Address:
    """The address of the package of a cell for a target."""
    return Address(target, identity.name, identity.version, identity.digest[:DIGITS])


def parse_module(module: str) -> Address | None:
    """The address that a module's full name says, or None for the name of anything else."""
    package, _, stem = module.rpartition(".")
    match = _STEM.fullmatch(stem)
    if package != __package__ or match is None:
        return None
    target, name, version, digest = match.groups()
    return Address(target, name.replace("_", "-"), version.replace("_", "."), digest)
