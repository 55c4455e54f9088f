"""`mnemo doctor`."""

import importlib.metadata
import platform
from typing import Any

import rich_click as click

from .._version import DISTRIBUTION, version
from ..errors import MnemoError
from ._console import json_option, print_facts, print_json

LIBRARIES = (
    "equinox",
    "jax",
    "jaxlib",
    "numpy",
    "onnx-ir",
    "onnxruntime",
    "optax",
    "safetensors",
)
EXTRAS = {"torch": ("torch", "triton"), "recipes": ("accelerate", "datasets", "peft", "tokenizers", "transformers")}
"""The distributions that each optional extra installs."""


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Show the installed versions, the missing extras, the devices, and the folder of the cache.

    \b
    Example:
      mnemo doctor --json
    """
    from .._cache import cache_folder
    from ..zoo import EMBEDDED

    libraries = {name: _version(name) for name in LIBRARIES}
    extras = {extra: {name: _version(name) for name in names} for extra, names in EXTRAS.items()}
    facts: dict[str, Any] = {
        DISTRIBUTION: version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": libraries,
        "extras": extras,
        "devices": _devices() if libraries["jax"] else [],
        "cache": str(cache_folder()),
        "zoo": str(EMBEDDED),
    }
    if as_json:
        print_json(facts)
    else:
        shown = {name: facts[name] for name in (DISTRIBUTION, "python", "platform")}
        shown |= {name: installed or "missing" for name, installed in libraries.items()}
        for extra, names in extras.items():
            fix = f"missing; run: pip install '{DISTRIBUTION}[{extra}]'"
            shown |= {name: installed or fix for name, installed in names.items()}
        print_facts(shown | {"devices": ", ".join(facts["devices"]), "cache": facts["cache"], "zoo": facts["zoo"]})
    missing = [name for name, installed in libraries.items() if installed is None]
    if missing:
        raise MnemoError(f"{', '.join(missing)} missing; run: pip install {DISTRIBUTION}")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    import jax

    return [str(device) for device in jax.devices()]
