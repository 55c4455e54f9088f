"""Two processes that see half of each batch take the steps of one that sees all of it."""

import pathlib

from tests.ranks import launch


def test_copies_and_shards(package_folder: pathlib.Path) -> None:
    """`DistributedDataParallel`, `fully_shard` and Accelerate."""
    launch("tests.integrations.ranks", 2, str(package_folder))
