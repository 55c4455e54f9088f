"""The suites that ship: what each must hold, and that `unseen` is unseen."""

import math
import pathlib
from typing import Any

import pytest

from mnemo_compile.errors import UsageError
from mnemo_compile.meta import load_config, presets
from mnemo_compile.meta.evaluation import load_suite
from mnemo_compile.meta.tasks import AbstractFamily


def parameters(family: AbstractFamily) -> int:
    return sum(math.prod(shape) for shape in family.shapes)


def data_of(config: Any) -> str:
    """The kind of a family's data."""
    return config.kind if hasattr(config, "kind") else config.data.kind


def meta_trained() -> list[Any]:
    """Every family that a preset trains on or validates with."""
    configs = [load_config(name) for name in presets()]
    return [family for config in configs for family in (*config.families, *config.validation.families)]


def test_unseen_has_no_data_that_meta_training_has() -> None:
    seen = {data_of(family) for family in meta_trained()}
    unseen = {data_of(task.family) for task in load_suite("unseen").tasks}
    assert not seen & unseen
    # Nor has the suite that choices are made on.
    valid = {data_of(task.family) for task in load_suite("valid").tasks}
    assert not valid & unseen


def test_unseen_holds_what_it_must() -> None:
    tasks = load_suite("unseen").tasks
    assert len(tasks) >= 10
    networks = [getattr(task.family, "network", None) for task in tasks]
    kinds = [network.kind for network in networks if network is not None]
    assert {"mlp", "conv", "vit", "transformer", "recurrent", "mixer"} <= set(kinds)
    assert any(getattr(n, "widths", ()) == (512,) * 4 for n in networks)
    assert any(getattr(n, "residual_blocks", 0) for n in networks)
    assert any(getattr(n, "causal", False) for n in networks)
    families = [task.family for task in tasks]
    assert any(getattr(family, "reconstructs", False) for family in families)
    assert any(not getattr(f, "reconstructs", False) and f.build().minimised == "squared" for f in families)  # type: ignore[union-attr]
    batches = {(str(f.network), str(f.data)): set() for f in families if hasattr(f, "network")}  # type: ignore[union-attr]
    for family in families:
        batches[str(family.network), str(family.data)].add(family.batch)  # type: ignore[union-attr]
    assert any(len(sizes) > 1 and max(sizes) >= 32 * min(sizes) for sizes in batches.values())
    assert any(task.before is not None for task in tasks)
    assert all(task.seeds >= 3 for task in tasks)


def test_unseen_and_large_are_larger_and_long_is_longer_than_meta_training() -> None:
    configs = [load_config(name) for name in presets()]
    largest = max(parameters(family.build()) for config in configs for family in config.families)
    sizes = sorted(parameters(task.build()) for task in load_suite("unseen").tasks)
    assert sizes[len(sizes) // 2] >= 3 * largest
    assert max(parameters(task.build()) for task in load_suite("large").tasks) >= 50 * largest
    assert all(task.steps >= 10 * c.inner.longest for task in load_suite("long").tasks for c in configs)


def test_train_is_what_the_lstm_meta_trains_on() -> None:
    assert [task.family for task in load_suite("train").tasks] == list(load_config("lstm").families)


TASK = '[[tasks]]\nname = "one"\nsteps = 100\nfamily = { kind = "quadratic", dimension = 4 }\n'
OTHER = "before = { steps = 100, family = { kind = 'quadratic', dimension = 5 } }\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tasks = 3", "about"),
        ('about = ""\n' + TASK + TASK, "two tasks are called one"),
        ('about = ""\n' + TASK.replace("100", "150"), "multiple of 100"),
        ('about = ""\n' + TASK.replace("one", "a b"), "tasks.0.name"),
        ('about = ""\n' + TASK + OTHER, "same tensors"),
        ("about = ", "not valid TOML"),
    ],
)
def test_a_file_that_is_no_suite_is_refused_in_a_sentence(text: str, said: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        load_suite(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_suite_that_is_not_there_is_refused_with_those_that_are(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match="choose one of large, long, train, unseen, valid"):
        load_suite("hard")
    with pytest.raises(UsageError, match="cannot read"):
        load_suite(str(tmp_path / "none.toml"))
