"""Mnemosyne: a compiler for learned optimizers.

```python
import mnemo_compile as mnemo

Mnemosyne = mnemo.to_torch("mnemosyne-tiny")
optimizer = Mnemosyne(model.parameters())
```

Importing this package imports neither JAX nor torch nor onnx. The first function that needs one imports it.
"""

import importlib
from typing import Any, TYPE_CHECKING

from . import _start as _start

if TYPE_CHECKING:
    from ._facade import export as export, to_optax as to_optax, to_torch as to_torch
    from ._refs import load as load
    from .frozen import freeze as freeze, FrozenCell as FrozenCell, save as save

    __version__: str

_HOMES = {
    "FrozenCell": ".frozen",
    "export": "._facade",
    "freeze": ".frozen",
    "load": "._refs",
    "save": ".frozen",
    "to_optax": "._facade",
    "to_torch": "._facade",
}

__all__ = ["FrozenCell", "__version__", "export", "freeze", "load", "save", "to_optax", "to_torch"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from ._version import version

        return version()
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
