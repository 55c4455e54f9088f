"""The files of a bundle."""

from typing import Final, Literal

DataFile = Literal["cell.json", "weights.safetensors"]
"""A file that the manifest has a record of."""
BundleFile = Literal["cell.json", "weights.safetensors", "manifest.json"]

CELL_FILE: Final = "cell.json"
WEIGHTS_FILE: Final = "weights.safetensors"
MANIFEST_FILE: Final = "manifest.json"
DATA_FILES: tuple[DataFile, ...] = (CELL_FILE, WEIGHTS_FILE)
BUNDLE_FILES: tuple[BundleFile, ...] = (CELL_FILE, WEIGHTS_FILE, MANIFEST_FILE)
