"""The digest that names a frozen cell by what it computes."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def canonical_json(data: Any) -> bytes:
    """JSON with sorted keys, no spaces and ASCII only. Equal data give equal bytes."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def canonical_digest(config: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> str:
    """The sha256, in hexadecimal, of the configuration and the weights.

    The hash covers the configuration as canonical JSON and a newline. Then follows every weight in the sorted order of
    the names: `[name, dtype, shape]` as canonical JSON, a newline, and the values, little-endian in row-major order.
    The digest does not use the bytes of a safetensors file, because the order of its header is not fixed.

    **Arguments:**

    - `config`: the configuration as plain JSON data.
    - `weights`: arrays by their dotted names.
    """
    digest = hashlib.sha256(canonical_json(dict(config)) + b"\n")
    for name in sorted(weights):
        weight = weights[name]
        digest.update(canonical_json([name, weight.dtype.name, list(weight.shape)]) + b"\n")
        digest.update(weight.astype(weight.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
