"""The fingerprint of the compiler, because the code of a checkout changes without its version."""

import functools
import hashlib
import importlib.metadata
import json
import pathlib

from .._start import START
from .._version import version
from ..frozen import library_versions

ROOT = pathlib.Path(__file__).parents[1]
PARTS = ("cell", "exporters", "frozen", "program", "step", "verify")
"""The folders of the compiler, which decide the bytes of a package and whether it is correct."""
OPTIONAL = ("torch", "triton")
"""Libraries that need not be there. Without Triton a package has no kernels."""


@functools.cache
def fingerprint() -> str:
    """The sha256 of the compiler's version and sources, and of the versions of the libraries that it runs on."""
    digest = hashlib.sha256(json.dumps([version(), library_versions(), *map(_version_of, OPTIONAL)]).encode())
    digest.update(sources_digest(ROOT))
    return digest.hexdigest()


def sources_digest(root: pathlib.Path) -> bytes:
    """The sha256 of the names and contents of the compiler's sources in a folder."""
    digest = hashlib.sha256()
    for path in _sources(root):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return digest.digest()


def sources_changed() -> bool:
    """Whether a source is newer than the code that this process runs, so that its fingerprint is that of other code."""
    return any(path.stat().st_mtime > START for path in _sources(ROOT))


def _sources(root: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for part in PARTS for path in (root / part).rglob("*.py"))


def _version_of(distribution: str) -> str | None:
    """None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
