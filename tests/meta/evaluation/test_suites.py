"""The suites that ship: what each must hold, and that `unseen` is unseen."""

import hashlib
import math
import pathlib
from typing import Any

import pytest

from mnemo_compile.errors import UsageError
from mnemo_compile.meta import load_config, presets
from mnemo_compile.meta.evaluation import load_suite, suites, TaskConfig
from mnemo_compile.meta.tasks import AbstractFamily, SupervisedConfig

SAME = {"fractals": "digits", "photograph": "patches", "noisy-patches": "patches", "prose": "source"}
SAME["cylinder-bell-funnel"] = "signals"
"""Data that come from what another kind of data reads, or that a network is trained on before the other."""
LATER = {"catch": "valid"}
"""Data that joined a suite after optimizers had been run on the others. They may only be used to choose."""


def parameters(family: AbstractFamily) -> int:
    return sum(math.prod(shape) for shape in family.shapes)


def data_of(config: Any) -> str:
    """The kind of a family's data. A family without data has a rule of its own."""
    if hasattr(config, "data"):
        return config.data.kind
    return getattr(config, "environment", None) or getattr(config, "equation", None) or config.kind


def all_data_of(task: TaskConfig) -> set[str]:
    """Of the task, and of what came before."""
    return {data_of(each.family) for each in (task, task.before) if each is not None}


def data_of_suite(name: str) -> set[str]:
    return set[str]().union(*(all_data_of(task) for task in load_suite(name).tasks))


def meta_trained() -> list[Any]:
    """Every family that a preset trains on or validates with."""
    configs = [load_config(name) for name in presets()]
    return [family for config in configs for family in (*config.families, *config.validation.families)]


def test_unseen_has_no_data_that_meta_training_has() -> None:
    seen = {data_of(family) for family in meta_trained()}
    unseen = data_of_suite("unseen")
    assert not seen & unseen
    # Nor has the suite that choices are made on.
    assert not data_of_suite("valid") & unseen


def test_a_rule_divides_the_tasks_after_publications() -> None:
    sides: dict[str, str] = {}
    fixed: dict[str, str] = {}
    for suite in ("valid", "unseen"):
        for task in load_suite(suite).tasks:
            of_task = {SAME.get(data, data) for data in all_data_of(task)}
            assert len(of_task) == 1, task.name
            (sides if task.source else fixed)[of_task.pop()] = suite
    # What the suites already read stays where it is.
    assert all(fixed[data] == sides[data] for data in sides.keys() & fixed.keys())
    assert {data: sides[data] for data in LATER} == LATER and set(LATER.values()) == {"valid"}
    others = sorted(
        sides.keys() - fixed.keys() - LATER.keys(), key=lambda data: hashlib.sha256(data.encode()).hexdigest()
    )
    assert [sides[data] for data in others] == [("valid", "unseen")[place % 2] for place in range(len(others))]


def test_there_are_tasks_after_publications_for_choosing_and_for_reporting() -> None:
    published = {suite: [task for task in load_suite(suite).tasks if task.source] for suite in ("valid", "unseen")}
    assert all(len(tasks) >= 12 for tasks in published.values())
    assert sum(task.before is not None for tasks in published.values() for task in tasks) >= 4


def test_every_task_that_ships_has_a_kind_and_every_tensor_a_name() -> None:
    for suite in suites():
        for task in load_suite(suite).tasks:
            assert task.kind != "other", task.name
            names = [tensor.name for tensor in task.build().tensors]
            assert "" not in names or task.kind == "least-squares", task.name
            assert len(set(names)) == len(names), task.name


def test_unseen_holds_what_it_must() -> None:
    tasks = load_suite("unseen").tasks
    assert len(tasks) >= 10
    networks = [getattr(task.family, "network", None) for task in tasks]
    kinds = [network.kind for network in networks if network is not None]
    assert {"mlp", "conv", "vit", "transformer", "recurrent", "mixer"} <= set(kinds)
    assert any(getattr(n, "widths", ()) == (512,) * 4 for n in networks)
    assert any(getattr(n, "residual_blocks", 0) for n in networks)
    assert any(getattr(n, "causal", False) for n in networks)
    families = [task.family for task in tasks if isinstance(task.family, SupervisedConfig)]
    assert any(family.reconstructs for family in families)
    assert any(not f.reconstructs and f.build().minimised == "squared" for f in families)
    batches: dict[tuple[str, str], set[int]] = {(str(f.network), str(f.data)): set() for f in families}
    for family in families:
        batches[str(family.network), str(family.data)].add(family.batch)
    assert any(len(sizes) > 1 and max(sizes) >= 32 * min(sizes) for sizes in batches.values())
    assert any(task.before is not None for task in tasks)
    assert all(task.seeds >= 3 for task in tasks)


def test_unseen_and_large_are_larger_and_long_is_longer_than_meta_training() -> None:
    configs = [load_config(name) for name in presets()]
    largest = max(parameters(family.build()) for config in configs for family in config.families)
    # Tasks after publications have the sizes that a short training allows.
    sizes = sorted(parameters(task.build()) for task in load_suite("unseen").tasks if not task.source)
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
