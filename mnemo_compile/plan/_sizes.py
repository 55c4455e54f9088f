"""Sizes of memory, as users write and read them."""

import re

from ..errors import UsageError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_size(text: str) -> int:
    """The bytes of a size such as `80G`, `80GB` or `79.1GiB`. Anything else raises `UsageError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", text.strip().upper())
    if match is None or (match[3] and not match[2]) or not float(match[1]):
        raise UsageError(f"{text!r} is not a size of memory; write one such as 80G, 512M or 79.1GiB")
    return int(float(match[1]) * (_BINARY if match[3] else _UNITS)[match[2]])


def format_size(size: float) -> str:
    """Bytes in the decimal unit that gives the shortest number, with three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB" if size < 999.5 else f"{size:.0f} TB"
