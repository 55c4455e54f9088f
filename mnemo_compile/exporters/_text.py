"""Text files of exports."""

import pathlib


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes UTF-8 with the same line endings on every system."""
    path.write_text(text, encoding="utf-8", newline="\n")
