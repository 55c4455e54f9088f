"""A preset or a TOML file that does not fit is refused with one sentence that names the key, the file and what fits."""

import pathlib

import pytest

from mnemo_compile.errors import UsageError
from mnemo_compile.frozen._frozen import state_bytes
from mnemo_compile.meta import load_config, presets


def test_every_preset_loads() -> None:
    assert "tiny" in presets()
    for name in presets():
        assert load_config(name).preset == name


def test_presets_keep_the_bytes_that_they_say() -> None:
    """Bytes per parameter of a matrix, and of what has no tiles."""
    budgets = {
        "base": (4, 8),
        "small": (2, 4),
        "elementwise": (8, 8),
        "tiny": (8, 12),
        "tensor-wise": (4, 6),
        "coordinate-wise": (20, 20),
        "compact": (2, 4),
        "factored": (4, 4.125),
    }
    for name, (of_matrices, of_others) in budgets.items():
        cell = load_config(name).cell.build()
        assert state_bytes(cell) == of_matrices
        assert sum(slot.bytes_per_parameter("vector", cell.chunk_length) for slot in cell.memory_slots) == of_others
        assert f"{of_others:.2g} bytes" in presets()[name].read_text() or name in ("tiny", "elementwise")


def test_a_file_extends_a_preset_and_another_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "tiny"\nminutes = 1\n[cell]\nkind = "mnemosyne"\ntoken = 3\n')
    (tmp_path / "b.toml").write_text('extends = "a.toml"\n[cell]\nkernel = "relu"\n[inner]\ntasks = 2\n')
    tiny, config = load_config("tiny"), load_config(str(tmp_path / "b.toml"))
    assert config.preset == "b" and config.minutes == 1
    assert (config.cell.model_dump()["token"], config.cell.model_dump()["kernel"]) == (3, "relu")
    assert config.inner == tiny.inner.model_copy(update={"tasks": 2})
    assert config.families == tiny.families and config.validation == tiny.validation
    (tmp_path / "c.toml").write_text('extends = "b.toml"\n[cell]\nkind = "lstm"\nhidden = 2\n')
    cell = load_config(str(tmp_path / "c.toml")).cell
    assert cell.kind == "lstm" and cell.model_dump()["hidden"] == 2


def test_extending_what_is_not_there_or_itself_is_refused(tmp_path: pathlib.Path) -> None:
    config = tmp_path / "a.toml"
    config.write_text('extends = "tinny"\n')
    assert "there is no preset" in refused(config)
    config.write_text("extends = 3\n")
    assert "should be the name of a preset" in refused(config)
    config.write_text('extends = "b.toml"\n')
    (tmp_path / "b.toml").write_text('extends = "a.toml"\n')
    assert "comes back to this file" in refused(config)


def refused(config: pathlib.Path, *overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_config(str(config), overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_unknown_preset_names_the_ones_there_are() -> None:
    with pytest.raises(UsageError, match="no preset 'tinny'.*tiny"):
        load_config("tinny")


def test_a_misspelled_key_is_named_with_the_ones_that_fit(config: pathlib.Path) -> None:
    message = refused(config, "inner.trunkation=3")
    assert str(config) in message and "inner.trunkation" in message and "truncation" in message


def test_a_misspelled_key_of_a_cell_is_named_with_those_of_its_kind(config: pathlib.Path) -> None:
    message = refused(config, "cell.prior.nesterof=0.1")
    assert "cell.prior.nesterof is not a key here" in message and "nesterov" in message
    message = refused(config, "cell.prior.steps.matricks=0.1")
    assert "cell.prior.steps.matricks is not a key here" in message and "matrix" in message
    message = refused(config, "cell.nesterov=0.1")
    assert "cell.nesterov is not a key here" in message and "prior" in message and "pooling_levels" in message


def test_a_misspelled_key_of_a_network_is_named(config: pathlib.Path) -> None:
    text = config.read_text().replace("widths = [3]", "width = [3]")
    config.write_text(text)
    message = refused(config)
    assert "families" in message and str(config) in message and "widths" in message


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("inner.tasks=many", "inner.tasks"),
        ("inner.tasks=0", "inner.tasks"),
        ("inner.shortest=100", "inner"),
        ("outer.learning_rate=-1", "outer.learning_rate"),
        ("cell.kind=lstm", "cell"),
        ("cell.momentum=[0.9, 2.0]", "cell.momentum"),
        ("cell.prior.guard=3", "cell.prior.guard"),
        ("cell.coordinate_wise=['matrix']", "cell"),
        ("minutes=soon", "minutes"),
        ("nonsense=1", "nonsense"),
    ],
)
def test_a_value_that_does_not_fit_names_key_and_file(config: pathlib.Path, override: str, named: str) -> None:
    message = refused(config, override)
    assert named in message and str(config) in message


def test_an_override_into_something_that_is_no_table(config: pathlib.Path) -> None:
    assert "minutes is not a table" in refused(config, "minutes.x=1")


def test_overrides_win_and_keep_the_rest(config: pathlib.Path) -> None:
    loaded = load_config(str(config), ("inner.tasks=5", "cell.kernel=relu", "cell.prior.guard=0.5"), seed=9)
    prior = loaded.cell.model_dump()["prior"]
    assert prior == {**load_config(str(config)).cell.model_dump()["prior"], "guard": 0.5}
    assert (loaded.inner.tasks, loaded.inner.truncation, loaded.cell.model_dump()["kernel"]) == (5, 2, "relu")
    assert loaded.seed == loaded.cell.seed == 9


def test_no_file_and_no_toml(config: pathlib.Path) -> None:
    assert "cannot read" in refused(config.with_name("missing.toml"))
    config.write_text("[inner")
    assert "is not valid TOML" in refused(config)
    config.write_bytes(b"\xff\xfe")
    assert "is not valid TOML" in refused(config)
