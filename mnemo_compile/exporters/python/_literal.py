"""Plain data as Python source."""

from ...step import MemorySlot


def literal(value: object, indent: str = "") -> str:
    """The value as Python source. Dictionaries and long tuples have one entry per line."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        entries = [f"{literal(key)}: {literal(item, indent + '    ')}" for key, item in value.items()]
        return _lines("{", entries, "}", indent)
    if isinstance(value, MemorySlot):
        return f"MemorySlot({', '.join(f'{key}={literal(item)}' for key, item in value._asdict().items())})"
    if isinstance(value, tuple):
        entries = [literal(item) for item in value]
        short = f"({', '.join(entries)}{',' * (len(entries) == 1)})"
        return short if len(short) <= 60 else _lines("(", entries, ")", indent)
    return repr(value)


def _lines(start: str, entries: list[str], end: str, indent: str) -> str:
    return "\n".join([start, *(f"{indent}    {entry}," for entry in entries), f"{indent}{end}"])
