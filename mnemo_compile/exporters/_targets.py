"""The targets of this package and of other installed packages, found through entry points."""

from .. import _entry_points
from .._suggestions import did_you_mean
from ..errors import UsageError
from ._interface import AbstractExporter

_registered: dict[str, type[AbstractExporter]] = {}


def register_target(exporter: type[AbstractExporter]) -> type[AbstractExporter]:
    """Registers a target in this process; usable as a decorator.

    An installed package can instead name the class among its entry points, in the group `mnemo_compile.targets`. Every
    command then finds it.
    """
    _registered[exporter().name] = exporter
    return exporter


def targets() -> tuple[str, ...]:
    """Names of all targets, in order."""
    return tuple(sorted({*_registered, *_entry_points.names(_entry_points.TARGETS)}))


def exporter_of(target: str) -> AbstractExporter:
    """The exporter of a target. An unknown name raises `UsageError`."""
    exporter = _registered.get(target) or _entry_points.load(_entry_points.TARGETS, target)
    if exporter is not None:
        return exporter()
    names = targets()
    if not names:
        raise UsageError("no targets are found, as the package is not installed; in its folder run: pip install -e .")
    suggestion = did_you_mean(target, (*names, "all"))
    raise UsageError(f"there is no target {target!r}; the targets are {', '.join(names)} and all{suggestion}")
