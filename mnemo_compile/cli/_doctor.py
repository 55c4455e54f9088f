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
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxscript",
    "optax",
    "safetensors",
)
EXTRAS = {"torch": ("torch",), "recipes": ("accelerate", "peft", "transformers")}


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Show the versions of the libraries, the devices, which extras are missing, and where the cache is.

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
        shown |= {name: found or "missing" for name, found in libraries.items()}
        for extra, found in extras.items():
            mend = f"missing; run: pip install '{DISTRIBUTION}[{extra}]'"
            shown |= {name: version or mend for name, version in found.items()}
        print_facts(shown | {"devices": ", ".join(facts["devices"]), "cache": facts["cache"], "zoo": facts["zoo"]})
    missing = [name for name, found in libraries.items() if found is None]
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
