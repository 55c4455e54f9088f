"""A run's folder: one that holds something else is left as it was."""

import pathlib

import pytest

from mnemo_compile.errors import UsageError
from mnemo_compile.meta import meta_train


def test_a_folder_that_holds_something_else_is_left_as_it_was(adam: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "taken"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        meta_train(str(adam), out, steps=1)
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]


def test_resuming_what_is_not_there_or_is_another_run(adam: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match="no run in .* to resume"):
        meta_train(str(adam), tmp_path / "none", steps=1, resume=True)
    assert not (tmp_path / "none").exists()
    out = tmp_path / "run"
    meta_train(str(adam), out, steps=1)
    with pytest.raises(UsageError, match="holds a run: add --resume"):
        meta_train(str(adam), out, steps=2)
    with pytest.raises(UsageError, match="another configuration or seed"):
        meta_train(str(adam), out, steps=2, resume=True, seed=3)
