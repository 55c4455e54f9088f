"""Mnemosyne: a compiler for learned optimizers.

```python
import mnemo_compile as mnemo

Mnemosyne = mnemo.to_torch("mnemosyne-tiny")
optimizer = Mnemosyne(model.parameters())
```

Importing this package imports neither JAX nor torch nor onnx; each is imported by the first function that needs it.
"""

from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
    from ._facade import export as export, to_optax as to_optax, to_torch as to_torch
    from ._refs import load as load
    from .artifact import FrozenCell as FrozenCell

    __version__: str

__all__ = ["FrozenCell", "__version__", "export", "load", "to_optax", "to_torch"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from ._version import version

        return version()
    if name == "FrozenCell":
        from .artifact import FrozenCell

        return FrozenCell
    if name == "load":
        from ._refs import load

        return load
    if name in __all__:
        from . import _facade

        return getattr(_facade, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
