"""Loading the configuration of a run: presets, TOML files, overrides, and messages for what does not fit."""

import pathlib
import tomllib
from typing import Any

import pydantic

from .._suggestions import did_you_mean
from ..errors import UsageError
from ._config import RunConfig
from ._problems import describe_problem

PRESETS = pathlib.Path(__file__).parent / "presets"


def presets() -> dict[str, pathlib.Path]:
    """The presets that ship with the package, by name."""
    return {path.stem: path for path in sorted(PRESETS.glob("*.toml"))}


def load_config(
    preset: str, overrides: tuple[str, ...] = (), seed: int | None = None, name: str | None = None
) -> RunConfig:
    """The run that a preset or a TOML file describes, with `key=value` overrides such as `inner.tasks=4`.

    Raises `UsageError` for a preset that does not exist, a file that is not TOML, and a key or value that does not fit.
    """
    path, data = _read(preset)
    data["preset"] = path.stem
    for override in overrides:
        set_key(data, override)
    if seed is not None:
        data["seed"] = seed
    if name is not None:
        data["name"] = name
    # The cell starts from the run's seed unless it names its own.
    if isinstance(data.get("cell"), dict):
        data["cell"].setdefault("seed", data.get("seed", 0))
    try:
        return RunConfig.model_validate(data)
    except pydantic.ValidationError as error:
        raise UsageError(f"{path}: {describe_problem(error, RunConfig, data.get('cell'))}") from None


def _read(preset: str, extended: tuple[pathlib.Path, ...] = ()) -> tuple[pathlib.Path, dict[str, Any]]:
    """The path of a preset, and its content merged over the preset that it extends."""
    path = presets().get(preset)
    if path is None:
        path = pathlib.Path(preset)
        if path.suffix != ".toml":
            names = ", ".join(presets())
            raise UsageError(
                f"there is no preset '{preset}'; choose one of {names}, or give the path of a .toml file"
                f"{did_you_mean(preset, presets())}"
            )
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    if "preset" in data:
        raise UsageError(f"{path}: preset: the name is that of the file; remove the key")
    base = data.pop("extends", None)
    if base is None:
        return path, data
    if not isinstance(base, str):
        raise UsageError(f"{path}: extends should be the name of a preset, or the path of a .toml file")
    if path.resolve() in extended:
        raise UsageError(f"{path}: extends comes back to this file; extend one that does not extend it")
    if base not in presets():
        # Relative to this file, not to the working directory.
        base = str(path.parent / base)
    _, below = _read(base, (*extended, path.resolve()))
    return path, _merge(below, data)


def _merge(below: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """`data` over `below`: tables are merged key by key, except a cell of another kind; other values are replaced."""
    merged = dict(below)
    for key, value in data.items():
        before = below.get(key)
        merged[key] = value
        if isinstance(value, dict) and isinstance(before, dict):
            if value.get("kind", before.get("kind")) == before.get("kind"):
                merged[key] = _merge(before, value)
    return merged


def set_key(data: dict[str, Any], override: str) -> None:
    """Puts `a.b=value` into nested tables. The value is read as TOML, and as a string if it is not TOML."""
    name, _, text = override.partition("=")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, key = name.strip().split(".")
    for table in tables:
        inner = data.setdefault(table, {})
        if not isinstance(inner, dict):
            names = ("cell", "inner", "curriculum", "estimator", "outer", "validation")
            raise UsageError(
                f"--set {override}: {table} is not a table; tables are {', '.join(names)}{did_you_mean(table, names)}"
            )
        data = inner
    data[key] = value
