"""The tables of scikit-learn."""

import itertools

import numpy as np

from mnemo_compile.meta.tasks import SPLITS
from mnemo_compile.meta.tasks.data._table import Table, TableConfig


def test_splits_share_no_row() -> None:
    data = Table(TableConfig(kind="digits"))
    rows = {split: {bytes(np.asarray(row)) for row in data.rows[split][0]} for split in SPLITS}
    for one, two in itertools.combinations(SPLITS, 2):
        assert len(rows[one] & rows[two]) <= 3, "apart from images that are in the set twice"
