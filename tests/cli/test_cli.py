"""The command line: what it prints, where, and with which exit code."""

import json
import pathlib
import re
import sys
import types
from collections.abc import Callable

import pytest

from mnemo_compile import _version
from mnemo_compile.cli import main
from mnemo_compile.errors import MissingExtraError, MnemoError, UsageError
from mnemo_compile.frozen import FrozenCell, load_bundle, save
from mnemo_compile.meta import cell_name
from mnemo_compile.program import PASSES
from mnemo_compile.step import PHASES, ROLES, TILED
from mnemo_compile.verify import VerificationReport
from mnemo_compile.zoo import open_zoo, publish
from tests.helpers import frozen_adam

Freeze = Callable[..., FrozenCell]
COMMANDS = (
    [],
    ["meta-train"],
    ["eval"],
    ["export"],
    ["plan"],
    ["inspect"],
    ["download"],
    ["zoo"],
    ["zoo", "list"],
    ["zoo", "show"],
    ["zoo", "publish"],
    ["zoo", "verify"],
    ["doctor"],
)


@pytest.fixture
def zoo_folder(freeze_small: Freeze, tmp_path: pathlib.Path) -> str:
    """A zoo with small-cell 1.0.0 and 1.1.0."""
    for seed, version in enumerate(("1.0.0", "1.1.0")):
        publish(freeze_small(seed), tmp_path / "zoo", name="small-cell", version=version)
    return str(tmp_path / "zoo")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts functions in the place of a part of the package."""

    def put(name: str, **functions: Callable) -> None:
        module = types.ModuleType(f"mnemo_compile.{name}")
        module.__dict__.update(functions)
        monkeypatch.setitem(sys.modules, f"mnemo_compile.{name}", module)

    return put


class Outcome:
    """What a command line printed and returned."""

    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err

    @property
    def error(self) -> str:
        """The sentence of a failure; nothing else was printed."""
        lines = self.err.splitlines()
        assert self.code in (1, 2)
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command line in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(run, command: list[str]) -> None:
    outcome = run(*command, "--help")
    assert outcome.code == 0
    assert "Example:" in outcome.out
    assert " ".join(["mnemo", *command]) in outcome.out.split("Example:")[1]
    assert "\x1b" not in outcome.out


def test_version(run) -> None:
    assert run("--version").out.startswith("mnemo, version 0.")


@pytest.mark.parametrize("command", ["inspect", "download", "zoo list", "zoo verify", "doctor"])
def test_an_option_that_is_none(run, command: str) -> None:
    outcome = run(*command.split(), "--jsn")
    assert outcome.code == 2
    assert "--jsn" in outcome.error
    assert f"see: mnemo {command} --help" in outcome.error


def test_a_command_that_is_none(run) -> None:
    outcome = run("exprot")
    assert outcome.code == 2
    assert "exprot" in outcome.error


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("exprot",), "export"),
        (("export", "x", "--target", "toch", "--out", "y"), "torch"),
        (("inspect", "mnemosyne-base", "--emit", "programm"), "program"),
        (("inspect", "mnemosyne-bas"), "mnemosyne-base"),
        (("inspect", "--preset", "tinny"), "tiny"),
        (("meta-train", "tinny", "--out", "y"), "tiny"),
        (("meta-train", "tiny", "--out", "y", "--set", "iner.tasks=3"), "inner"),
        (("meta-train", "tiny", "--out", "y", "--set", "inner.task=3"), "tasks"),
        (("meta-train", "tiny", "--out", "y", "--set", "cell.priors.guard=1"), "prior"),
        (("eval", "mnemosyne-base", "--suite", "vlid"), "valid"),
        (("eval", "mnemosyne-base", "--suite", "laddr"), "ladder"),
        (("eval", "mnemosyne-base", "--task", "mlp-tan-digits"), "mlp-tanh-digits"),
        (("eval", "mnemosyne-base", "--suite", "ladder", "--rungs", "reprot"), "report"),
        (("eval", "mnemosyne-base", "--suite", "suite.toml"), "steps"),
        (("meta-train", "preset.toml", "--out", "y"), "minutes"),
    ],
)
def test_a_word_that_is_none_is_answered_with_the_nearest(run, tmp_path, monkeypatch, words, meant: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "preset.toml").write_text('extends = "tiny"\nminuts = 3\n')
    (tmp_path / "suite.toml").write_text(
        'about = "a"\n[[tasks]]\nname = "a"\nsteps = 100\nstep = 3\nfamily = {kind = "quadratic", dimension = 2}\n'
    )
    outcome = run(*words)
    assert outcome.code in (1, 2)
    assert re.search(rf"did you mean '?{meant}'?\?", outcome.error, re.IGNORECASE), outcome.error
    assert not (tmp_path / "y").exists()


def test_a_table_that_is_piped_is_as_wide_as_its_text(run, bundle: pathlib.Path, zoo_folder: str) -> None:
    for words in (["inspect", bundle], ["zoo", "list", "--zoo", zoo_folder], ["zoo", "show", "mnemosyne-base"]):
        lines = run(*words).out.splitlines()
        assert lines and all(line == line.strip() for line in lines)
    long = "word " * 70
    publish(load_bundle(bundle), pathlib.Path(zoo_folder), name="wordy", version="1.0.0", description=long.strip())
    *others, wordy = run("zoo", "list", "--zoo", zoo_folder).out.splitlines()
    # The longest description is on one line, and makes no other line longer.
    assert wordy.endswith(long.strip()) and max(map(len, others)) < 100


@pytest.mark.parametrize("out", ["/proc/no/folder", "/dev/null/folder", "FILE", "FILE/folder"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(run, bundle, tmp_path, out: str) -> None:
    (tmp_path / "file").write_text("mine")
    out = out.replace("FILE", str(tmp_path / "file"))
    for words in (
        ["export", bundle, "--target", "torch", "--print-after", "all"],
        ["eval", bundle],
        ["eval", bundle, "--suite", "ladder"],
        ["meta-train", "tiny"],
        ["download", "mnemosyne-base"],
    ):
        outcome = run(*words, "--out", out)
        # The work would have printed a line before the one of the error.
        assert outcome.code in (1, 2) and out in outcome.error and "folder" in outcome.error
    assert (tmp_path / "file").read_text() == "mine"


def test_inspect(run, bundle: pathlib.Path) -> None:
    outcome = run("inspect", bundle, "--json")
    facts = json.loads(outcome.out)
    frozen = load_bundle(bundle)
    assert (outcome.code, outcome.err) == (0, "")
    assert facts["name"] == "small-cell"
    assert facts["digest"] == frozen.digest
    assert facts["weights"] == sum(weight.size for weight in frozen.weights.values())
    of_others = "float32 per coordinate of vector, embedding, head"
    assert set(facts["memory_slots"].values()) == {"float32 per coordinate", of_others}
    assert facts["state_bytes_per_parameter"] == {role: 8 if role in TILED else 12 for role in ROLES}
    assert set(facts["phases"]) == set(PHASES)
    for figures in facts["phases"].values():
        (equations, fewer), (operations, less) = figures["equations"], figures["operations"]
        assert 0 < fewer < equations and 0 < less <= operations
    for kind in ("coordinate", "tiled_coordinate"):
        assert 10 < facts[f"operations_per_{kind}"][1] <= facts[f"operations_per_{kind}"][0]
    # Five Newton–Schulz steps of three products.
    assert facts["operations_per_tiled_coordinate"][1] > 30 * facts["tile"]
    assert facts["state_bytes_per_tensor"] > 0
    assert facts["chunk_length"] == frozen.cell().chunk_length
    assert facts["training"]["figures"] == {"validation loss": 0.25}
    shown = run("inspect", bundle).out
    assert "8: matrix, convolution; 12: vector, embedding, head" in shown
    assert frozen.digest in shown
    assert "mnemo meta-train tiny --minutes 5" in shown


def test_inspect_tells_of_a_preset_before_it_is_trained(run) -> None:
    outcome = run("inspect", "--preset", "super", "--json")
    facts = json.loads(outcome.out)
    assert outcome.code == 0 and facts["name"] == "super" and set(facts["phases"]) == set(PHASES)
    assert facts["memory_slots"]["fast_weight"] == "bfloat16 per coordinate of vector, embedding, head"
    assert facts["state_bytes_per_parameter"] == {
        "vector": 10, "matrix": 4, "embedding": 10, "head": 10, "convolution": 4
    }  # fmt: skip
    shown = run("inspect", "--preset", "super").out
    assert "4: matrix, convolution; 10: vector, embedding, head" in shown
    outcome = run("inspect", "--preset", "sooper")
    assert outcome.code == 2 and "there is no preset 'sooper'" in outcome.error


def test_inspect_emits_the_configuration(run, bundle: pathlib.Path) -> None:
    config = json.loads(run("inspect", bundle, "--emit", "cell").out)
    assert config == load_bundle(bundle).config.model_dump(mode="json")
    assert "'cell'" in run("inspect", bundle, "--emit", "cells").error


def test_every_kind_of_reference(run, bundle: pathlib.Path, zoo_folder: str, tmp_path, monkeypatch) -> None:
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    bundle.rename(run_folder / "bundle")
    monkeypatch.chdir(tmp_path)

    def version(ref: str) -> str:
        return json.loads(run("inspect", ref, "--zoo", zoo_folder, "--json").out)["version"]

    assert version("small-cell") == version("small-cell@^1") == "1.1.0"
    assert version("small-cell@1.0.0") == "1.0.0"
    assert version(str(run_folder)) == version("run") == version("./run/bundle") == "1.0.0"


def test_a_name_of_the_zoo_is_not_a_folder_of_that_name(run, bundle, zoo_folder: str, tmp_path, monkeypatch) -> None:
    bundle.rename(tmp_path / "small-cell")
    monkeypatch.chdir(tmp_path)
    zoo = ("--zoo", zoo_folder, "--json")
    assert json.loads(run("inspect", "small-cell", *zoo).out)["version"] == "1.1.0"
    assert json.loads(run("inspect", "./small-cell", *zoo).out)["version"] == "1.0.0"


@pytest.mark.parametrize(
    ("ref", "code", "said"),
    [
        ("smal-cell", 1, "there is no 'smal-cell' in the zoo, which has small-cell; did you mean small-cell"),
        ("small-cell@3.0.0", 1, "the zoo has no such version of small-cell; it has 1.1.0, 1.0.0"),
        ("small-cell@latest", 2, "'small-cell@latest' is not a reference"),
        ("runs/none", 1, "there is no folder runs/none"),
        (".", 1, "finish a run that was stopped with: mnemo meta-train PRESET --out . --resume"),
    ],
)
@pytest.mark.parametrize("command", [("inspect",), ("export", "--target", "all", "--out", "out")])
def test_references_that_lead_nowhere(run, zoo_folder, stub, tmp_path, monkeypatch, command, ref, code, said) -> None:
    stub("exporters", export=lambda *_: pytest.fail("nothing to export"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    outcome = run(command[0], ref, *command[1:], "--zoo", zoo_folder)
    assert (outcome.code, outcome.out) == (code, "")
    assert said in outcome.error
    assert list(pathlib.Path().iterdir()) == []


def test_a_bundle_with_a_byte_flipped(run, bundle: pathlib.Path) -> None:
    path = bundle / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    outcome = run("inspect", bundle)
    assert outcome.code == 1
    assert outcome.error == f"{path} is damaged: its sha256 is not the recorded one; get it again from its source"


def test_download(run, zoo_folder: str, tmp_path: pathlib.Path, monkeypatch) -> None:
    outcome = run("download", "small-cell", "--zoo", zoo_folder, "--out", tmp_path / "out", "--json")
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert found["folder"] == str(tmp_path / "out")
    assert load_bundle(tmp_path / "out").digest == found["digest"]
    assert run("download", "small-cell", "--zoo", zoo_folder, "--out", tmp_path / "out").code == 0
    assert (
        "holds something else"
        in run("download", "small-cell@1.0.0", "--zoo", zoo_folder, "--out", tmp_path / "out").error
    )
    assert load_bundle(tmp_path / "out").digest == found["digest"]
    monkeypatch.chdir(tmp_path)
    assert run("download", "small-cell@1.0.0", "--zoo", zoo_folder).out == "small-cell-1.0.0\n"
    assert load_bundle(tmp_path / "small-cell-1.0.0").version == "1.0.0"


def test_download_refuses(run, zoo_folder: str, bundle: pathlib.Path) -> None:
    assert "is a folder; name a cell of a zoo" in run("download", bundle, "--zoo", zoo_folder).error
    assert "is not a zoo" in run("download", "small-cell", "--zoo", bundle).error
    unwritable = run("download", "small-cell", "--zoo", zoo_folder, "--out", "/proc/none/out")
    assert unwritable.code == 1
    assert "/proc/none/out cannot be written" in unwritable.error


def test_zoo_list_and_show(run, zoo_folder: str) -> None:
    entries = json.loads(run("zoo", "list", "--zoo", zoo_folder, "--json").out)
    assert [entry["version"] for entry in entries] == ["1.1.0", "1.0.0"]
    assert "small-cell" in run("zoo", "list", "--zoo", zoo_folder).out
    shown = json.loads(run("zoo", "show", "small-cell", "--zoo", zoo_folder, "--json").out)
    assert shown["versions"] == ["1.1.0", "1.0.0"]
    assert shown["manifest"]["training"]["preset"] == "tiny"
    assert "mnemo meta-train tiny --minutes 5" in run("zoo", "show", "small-cell@1.0.0", "--zoo", zoo_folder).out


def test_zoo_publish(run, zoo_folder: str, bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    publishing = ("zoo", "publish", bundle, "--name", "mine", "--version", "0.1.0", "--zoo", zoo_folder)
    assert run(*publishing).out == "mine@0.1.0\n"
    assert "mine@0.1.0 is already in" in run(*publishing).error
    (tmp_path / "run").mkdir()
    bundle.rename(tmp_path / "run" / "bundle")
    again = ("zoo", "publish", tmp_path / "run", "--name", "mine", "--version", "0.2.0", "--zoo", zoo_folder, "--json")
    assert json.loads(run(*again).out)["version"] == "0.2.0"
    assert [entry.version for entry in open_zoo(zoo_folder).index.versions("mine")] == ["0.2.0", "0.1.0"]
    url = run("zoo", "publish", tmp_path / "run", "--name", "a", "--version", "1.0.0", "--zoo", "https://example.org/z")
    assert url.code == 2
    assert "is not a folder" in url.error


def test_zoo_verify(run, zoo_folder: str) -> None:
    assert run("zoo", "verify", "--zoo", zoo_folder).out == "small-cell@1.0.0: intact\nsmall-cell@1.1.0: intact\n"
    path = pathlib.Path(zoo_folder) / "small-cell" / "1.1.0" / "cell.json"
    path.write_bytes(path.read_bytes().replace(b"4", b"5", 1))
    outcome = run("zoo", "verify", "--zoo", zoo_folder, "--json")
    assert outcome.code == 1
    assert "1 of 2 cells do not match the index: small-cell@1.1.0" in outcome.error
    problems = {line["reference"]: line["problem"] for line in json.loads(outcome.out)}
    assert problems["small-cell@1.0.0"] is None
    assert "cell.json is damaged" in problems["small-cell@1.1.0"]
    assert run("zoo", "verify", "small-cell@1.0.0", "--zoo", zoo_folder).code == 0


def report(target: str, step_error: float = 2e-7) -> VerificationReport:
    return VerificationReport(
        target=target,
        name="small-cell",
        version="1.0.0",
        digest="0" * 64,
        phases={"encode": 1.2e-7, "update": 3e-7},
        step_error=step_error,
        drift=4.5e-6,
    )


def test_export(run, stub, bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    calls = []

    def export(frozen: FrozenCell, targets: tuple[str, ...], out: pathlib.Path, watch: object):
        assert watch is None
        calls.append((frozen.digest, targets, out))
        return [report(target) for target in targets]

    stub("exporters", export=export)
    outcome = run("export", bundle, "--target", "onnx", "--target", "torch", "--out", tmp_path / "out")
    assert calls == [(load_bundle(bundle).digest, ("onnx", "torch"), tmp_path / "out")]
    assert outcome.code == 0
    for shown in ("onnx", "torch", "encode", "1.2e-07", "4.5e-06", "agrees"):
        assert shown in outcome.out
    assert "\x1b" not in outcome.out
    found = json.loads(run("export", bundle, "--target", "onnx", "--out", tmp_path / "out", "--json").out)
    assert found == [report("onnx").model_dump(mode="json") | {"passed": True}]


@pytest.mark.usefixtures("quick")
def test_the_program_is_shown_after_a_pass(run, bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    outcome = run("export", bundle, "--target", "torch", "--out", tmp_path / "out", "--print-after", "canonicalise")
    assert outcome.code == 0, outcome.err
    shown = re.findall(r"^# (\w+), after (\w+)\nprogram (\w+)$", outcome.err, re.MULTILINE)
    assert sorted(shown) == sorted((name, "canonicalise", name) for name in PHASES)
    assert "%square" in outcome.err and "kind=sum" in outcome.err and "reduce_sum" not in outcome.err
    assert "canonicalise" not in outcome.out
    refused = run("export", bundle, "--target", "torch", "--out", tmp_path / "other", "--print-after", "licm")
    assert refused.code == 2
    assert refused.error == f"there is no pass 'licm'; the passes are {', '.join(PASSES)} and all"
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("quick")
def test_an_export_is_verified_again_where_it_is(run, tmp_path: pathlib.Path, monkeypatch) -> None:
    bundle, out = tmp_path / "bundle", tmp_path / "out"
    save(frozen_adam(), bundle)
    assert run("export", bundle, "--target", "torch", "--target", "onnx", "--out", out).code == 0
    bundle.rename(tmp_path / "away")
    moved = out.rename(tmp_path / "moved")
    reports = json.loads(run("zoo", "verify", moved, "--json").out)
    assert [found["target"] for found in reports] == ["onnx", "torch"]
    monkeypatch.chdir(tmp_path)
    assert json.loads(run("zoo", "verify", "moved", "--json").out) == reports
    assert run("zoo", "verify", "no-such-folder").code == 1
    for found in reports:
        written = json.loads((moved / found["target"] / "verification.json").read_text())
        assert found == written | {"passed": True}

    phases = moved / "torch" / "small_cell" / "weights.safetensors"
    content = bytearray(phases.read_bytes())
    content[-2] ^= 0x40
    phases.write_bytes(content)
    broken = run("zoo", "verify", moved / "torch")
    assert broken.code == 1
    assert "the torch export does not compute what the cell computes" in broken.err
    assert broken.err.strip().endswith("export it again")
    assert "differs" in broken.out

    marker = moved / "onnx" / "export.json"
    marker.write_text(marker.read_text().replace('"schema_version": 1', '"schema_version": 7'))
    assert run("zoo", "verify", moved / "onnx").error.endswith(
        f"run: pip install 'mnemo-compile>={_version.version()}'"
    )
    assert "holds no export" in run("zoo", "verify", tmp_path).error


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("jaxpr", "{ lambda ; "),
        ("program", "program recall\n  input %clock.step: f32[rows]"),
        ("torch", "def update("),
        ("optax", "def update("),
        ("onnx", "Einsum"),
        ("stablehlo", "stablehlo."),
    ],
)
def test_inspect_emits_each_stage(run, bundle: pathlib.Path, stage: str, said: str) -> None:
    outcome = run("inspect", bundle, "--emit", stage)
    assert (outcome.code, outcome.err) == (0, "")
    assert said in outcome.out
    assert "\x1b" not in outcome.out


def test_export_refuses(run, stub, bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    target = run("export", bundle, "--target", "tensorflow", "--out", tmp_path / "out")
    assert target.code == 2
    assert "'onnx', 'optax', 'stablehlo', 'torch', 'all'" in target.error
    assert "--target" in run("export", bundle, "--out", tmp_path / "out").error

    def missing(*_: object, **__: object) -> None:
        raise MissingExtraError("torch", "torch")

    stub("exporters", export=missing)
    extra = run("export", bundle, "--target", "torch", "--out", tmp_path / "out")
    assert (extra.code, extra.error) == (1, "torch is not installed; run: pip install 'mnemo-compile[torch]'")


def test_meta_train_hands_on_what_it_was_told(run, stub, tmp_path: pathlib.Path) -> None:
    calls = []
    stub("meta", meta_train=lambda preset, out, **options: calls.append((preset, out, options)), cell_name=cell_name)
    assert run("meta-train", "tiny", "--out", tmp_path).code == 0
    told = ("--steps", "3", "--seed", "7", "--resume", "--set", "a.b=1", "--set", "c=d=e")
    assert run("meta-train", "my.toml", "--out", tmp_path, *told).code == 0
    nothing = {"minutes": None, "steps": None, "name": None, "seed": None, "resume": False, "overrides": ()}
    nothing |= {"draw": False, "place": None, "start": None}
    assert calls == [
        ("tiny", tmp_path, nothing),
        ("my.toml", tmp_path, nothing | {"steps": 3, "seed": 7, "resume": True, "overrides": ("a.b=1", "c=d=e")}),
    ]


def test_meta_train_takes_the_cell_that_it_starts_from(run, monkeypatch, tmp_path: pathlib.Path) -> None:
    starts = []
    monkeypatch.setattr("mnemo_compile.meta.meta_train", lambda *_, **options: starts.append(options["start"]))
    assert run("meta-train", "tiny", "--out", tmp_path, "--from", "mnemosyne-tiny").code == 0
    assert [(start.ref, start.frozen.name) for start in starts] == [("mnemosyne-tiny", "mnemosyne-tiny")]
    missing = run("meta-train", "tiny", "--out", tmp_path, "--from", tmp_path / "none")
    assert missing.code != 0 and "there is no folder" in missing.error


def test_meta_train_with_a_plot_prints_where_it_is(run, monkeypatch, tmp_path: pathlib.Path) -> None:
    calls = []
    monkeypatch.setattr("mnemo_compile.meta.meta_train", lambda *_, **options: calls.append(options))
    outcome = run("meta-train", "tiny", "--out", tmp_path, "--plot")
    assert (outcome.code, outcome.out) == (0, f"{tmp_path / 'curve.png'}\n")
    assert [options["draw"] for options in calls] == [True]


def test_meta_train_tells_each_process_its_place(run, monkeypatch, tmp_path: pathlib.Path) -> None:
    places = []
    monkeypatch.setattr("mnemo_compile.meta.meta_train", lambda *_, **options: places.append(options["place"]))
    told = ("--coordinator", "[::1]:9876", "--processes", "2", "--process", "1")
    assert run("meta-train", "tiny", "--out", tmp_path, *told).code == 0
    assert run("meta-train", "tiny", "--out", tmp_path, "--coordinator", "auto").code == 0
    assert places == [("[::1]:9876", 2, 1), ("auto", None, None)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--minutes", "1", "--steps", "2"), "--minutes and --steps both say when to stop"),
        (("--minutes", "0"), "--minutes"),
        (("--minutes", "nan"), "--minutes"),
        (("--minutes", "inf"), "--minutes"),
        (("--steps", "0"), "--steps"),
        (("--steps", "many"), "--steps"),
        (("--seed", "-1"), "--seed"),
        (("--set", "key"), "--set takes KEY=VALUE, not 'key'"),
        (("--processes", "2"), "need --coordinator HOST:PORT"),
        (("--coordinator", "here"), "--coordinator takes HOST:PORT or auto, not 'here'"),
        (("--coordinator", ":1", "--processes", "2", "--process", "0"), "takes HOST:PORT or auto, not ':1'"),
        (("--coordinator", "here:1", "--processes", "2"), "needs --processes N and --process I"),
        (("--coordinator", "here:1", "--processes", "2", "--process", "2"), "--process 2 is not one of 2 processes"),
        (("--coordinator", "auto", "--process", "0"), "--coordinator auto finds --processes and --process itself"),
        (("--set", "=1"), "--set takes KEY=VALUE, not '=1'"),
        (("--name", "My Cell"), "--name takes lower-case letters, digits and single hyphens"),
        (("--name", "mnemosyne-tiny"), "mnemosyne-tiny is the name of a model that ships"),
    ],
)
def test_meta_train_refuses(run, stub, tmp_path: pathlib.Path, options: tuple[str, ...], said: str) -> None:
    stub("meta", meta_train=lambda *_, **__: pytest.fail("called wrongly"), cell_name=cell_name)
    outcome = run("meta-train", "tiny", "--out", tmp_path / "run", *options)
    assert outcome.code == 2
    assert said in outcome.error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("no such preset"), 2, "error: no such preset\n"),
        (MnemoError("it\nfailed"), 1, "error: it failed\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (KeyboardInterrupt("saved; go on with: this"), 130, "saved; go on with: this\n"),
        (OSError(28, "No space left", "/a/b"), 1, "error: /a/b: No space left; free some space and try again\n"),
        (OSError(5, "Input/output error"), 1, "error: Input/output error\n"),
        (
            PermissionError(13, "Permission denied", "/a/b"),
            1,
            "error: /a/b: Permission denied; change the permissions or name another place\n",
        ),
    ],
)
def test_errors_become_one_sentence(run, stub, tmp_path, error: BaseException, code: int, said: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    stub("meta", meta_train=fail, cell_name=cell_name)
    outcome = run("meta-train", "tiny", "--out", tmp_path)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.lstrip("\n") == said


def test_doctor(run, own_cache: pathlib.Path) -> None:
    facts = json.loads(run("doctor", "--json").out)
    assert facts["cache"] == str(own_cache)
    assert facts["libraries"]["jax"]
    assert facts["devices"]
    assert "torch" in facts["extras"]["torch"]
    assert "mnemo-compile" in run("doctor").out


def test_doctor_says_what_to_install(run, monkeypatch: pytest.MonkeyPatch) -> None:
    from mnemo_compile.cli import _doctor

    monkeypatch.setattr(_doctor, "EXTRAS", {"torch": ("no-such-torch",)})
    assert "missing; run: pip install 'mnemo-compile[torch]'" in run("doctor").out
    monkeypatch.setattr(_doctor, "LIBRARIES", ("jax", "no-such-library"))
    assert run("doctor").error == "no-such-library missing; run: pip install mnemo-compile"
