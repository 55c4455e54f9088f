"""A bundle that is not what it says is refused with one sentence that names the file."""

import hashlib
import json
import os
import pathlib
import pickle
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings, strategies as st

from mnemo_compile.errors import MnemoError
from mnemo_compile.frozen import BUNDLE_FILES, canonical_digest, FrozenCell, load_bundle, save

Freeze = Callable[..., FrozenCell]


def refusal(folder: pathlib.Path) -> str:
    """The sentence with which a bundle is refused."""
    with pytest.raises(MnemoError) as caught:
        load_bundle(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def seal(folder: pathlib.Path, **changes: Any) -> None:
    """Changes keys of the manifest and makes its records of the other files, and of itself, fit."""
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    for name in data["files"]:
        content = (folder / name).read_bytes()
        data["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    data |= changes | {"checksum": "0" * 64}
    blank = json.dumps(data)
    path.write_text(blank.replace("0" * 64, hashlib.sha256(blank.encode()).hexdigest()))


@pytest.fixture(scope="module")
def whole(freeze_small: Freeze, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A bundle that no test changes."""
    folder = tmp_path_factory.mktemp("whole") / "bundle"
    save(freeze_small(), folder)
    return folder


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from(BUNDLE_FILES), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(whole: pathlib.Path, data: st.DataObject, name: str, bit: int) -> None:
    content = bytearray((whole / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1), "place")] ^= 1 << bit
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(shutil.copytree(whole, pathlib.Path(temporary) / "bundle"))
        (folder / name).write_bytes(content)
        assert str(folder / name) in refusal(folder)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from(BUNDLE_FILES))
def test_any_truncation_is_found(whole: pathlib.Path, data: st.DataObject, name: str) -> None:
    content = (whole / name).read_bytes()
    kept = data.draw(st.integers(0, len(content) - 1), "kept")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(shutil.copytree(whole, pathlib.Path(temporary) / "bundle"))
        (folder / name).write_bytes(content[:kept])
        assert str(folder / name) in refusal(folder)


@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_a_missing_file_is_named(bundle: pathlib.Path, name: str) -> None:
    (bundle / name).unlink()
    assert refusal(bundle) == f"{bundle / name} is missing"


@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_a_folder_in_place_of_a_file_is_named(bundle: pathlib.Path, name: str) -> None:
    (bundle / name).unlink()
    (bundle / name).mkdir()
    assert str(bundle / name) in refusal(bundle)


def test_a_file_that_grew_is_named(bundle: pathlib.Path) -> None:
    with (bundle / "weights.safetensors").open("ab") as file:
        file.write(b"\0")
    assert "weights.safetensors is longer than the recorded" in refusal(bundle)


def test_no_folder(tmp_path: pathlib.Path) -> None:
    assert "not a folder" in refusal(tmp_path / "none")


def test_a_manifest_that_lies_about_the_digest(bundle: pathlib.Path) -> None:
    seal(bundle, digest="ab" * 32)
    assert "manifest.json gives a digest that is not that of the weights" in refusal(bundle)


def test_a_manifest_that_lies_about_a_size(bundle: pathlib.Path) -> None:
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    files["weights.safetensors"]["size"] += 1
    seal(bundle, files=files)
    assert "weights.safetensors is truncated at" in refusal(bundle)


def test_a_manifest_that_lies_about_a_sha256(bundle: pathlib.Path) -> None:
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    files["cell.json"]["sha256"] = "cd" * 32
    seal(bundle, files=files)
    assert "cell.json is damaged: its sha256" in refusal(bundle)


def test_a_manifest_that_lies_about_the_state(bundle: pathlib.Path) -> None:
    seal(bundle, state_bytes=4)
    assert "says that the cell keeps 4 bytes of state per parameter" in refusal(bundle)


def test_a_manifest_that_lists_a_file_too_few(bundle: pathlib.Path) -> None:
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    del files["cell.json"]
    seal(bundle, files=files)
    assert "both cell.json and weights.safetensors" in refusal(bundle)


def test_a_manifest_that_lists_a_file_elsewhere(bundle: pathlib.Path) -> None:
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    files["../../etc/passwd"] = files["cell.json"]
    seal(bundle, files=files)
    assert "files.../../etc/passwd" in refusal(bundle)


def test_a_newer_schema_says_what_to_install(bundle: pathlib.Path) -> None:
    seal(bundle, schema_version=2, written_by="9.1.0", new_key={})
    assert "follows schema 2" in (sentence := refusal(bundle))
    assert "pip install 'mnemo-compile>=9.1.0'" in sentence


@pytest.mark.parametrize("schema", [0, -1])
def test_a_schema_that_never_was(bundle: pathlib.Path, schema: int) -> None:
    seal(bundle, schema_version=schema)
    assert f"follows schema {schema}, and the first is 1" in refusal(bundle)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema_version": "x"}'])
@pytest.mark.parametrize("name", ["cell.json", "manifest.json"])
def test_json_that_is_none_of_ours(bundle: pathlib.Path, name: str, raw: bytes) -> None:
    (bundle / name).write_bytes(raw)
    if name != "manifest.json":
        seal(bundle)
    assert f"{bundle / name} is not valid: " in refusal(bundle)


def test_a_manifest_without_end(bundle: pathlib.Path) -> None:
    (bundle / "manifest.json").write_bytes(b" " * (1 << 21))
    assert "not the manifest of a bundle" in refusal(bundle)


def change_config(folder: pathlib.Path, **changes: Any) -> None:
    path = folder / "cell.json"
    data = json.loads(path.read_text())
    data["config"] |= changes
    path.write_text(json.dumps(data))
    weights = safetensors.numpy.load_file(folder / "weights.safetensors")
    seal(folder, digest=canonical_digest(data["config"], weights))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"kind": "oracle"}, "kind"),
        ({"tokens": 4}, "tokens"),
        ({"token": "four"}, "token"),
        ({"token": -1}, "token"),
        ({"kernel": "gaussian"}, "kernel"),
        ({"momentum": [0.9, 2.0]}, "momentum"),
    ],
)
def test_a_cell_that_is_not_known(bundle: pathlib.Path, changes: dict[str, Any], found: str) -> None:
    change_config(bundle, **changes)
    assert f"{bundle / 'cell.json'} describes no known cell: " in (sentence := refusal(bundle))
    assert found in sentence


def test_a_configuration_that_asks_for_other_shapes(bundle: pathlib.Path) -> None:
    change_config(bundle, hidden=3)
    assert "of shape" in refusal(bundle)


def change_weights(folder: pathlib.Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    path = folder / "weights.safetensors"
    weights = safetensors.numpy.load_file(path)
    change(weights)
    safetensors.numpy.save_file(weights, path)
    config = json.loads((folder / "cell.json").read_text())["config"]
    seal(folder, digest=canonical_digest(config, weights))


def test_a_weight_too_few(bundle: pathlib.Path) -> None:
    change_weights(bundle, lambda weights: weights.pop("network.context.bias"))
    assert "lacks the weight network.context.bias" in refusal(bundle)


def test_a_weight_too_many(bundle: pathlib.Path) -> None:
    change_weights(bundle, lambda weights: weights.update(extra=np.zeros(1, np.float32)))
    assert "holds a weight extra" in refusal(bundle)


def test_a_weight_of_another_shape(bundle: pathlib.Path) -> None:
    change_weights(bundle, lambda weights: weights.update({"network.context.bias": np.zeros((2, 2), np.float32)}))
    assert "network.context.bias as float32 of shape (2, 2) where the cell has float32 of shape (4,)" in refusal(bundle)


def test_a_weight_of_another_type(bundle: pathlib.Path) -> None:
    change_weights(bundle, lambda weights: weights.update({"network.context.bias": np.zeros(4, np.float64)}))
    assert "network.context.bias as float64" in refusal(bundle)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_weight_that_is_not_finite(bundle: pathlib.Path, value: float) -> None:
    change_weights(bundle, lambda weights: weights.update({"network.context.bias": np.full(4, value, np.float32)}))
    assert "values of network.context.bias that are not finite" in refusal(bundle)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_truncated_safetensors_with_a_manifest_that_fits(whole: pathlib.Path, data: st.DataObject) -> None:
    content = (whole / "weights.safetensors").read_bytes()
    kept = data.draw(st.integers(0, len(content) - 1), "kept")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(shutil.copytree(whole, pathlib.Path(temporary) / "bundle"))
        (folder / "weights.safetensors").write_bytes(content[:kept])
        seal(folder)
        assert "weights.safetensors is not a complete safetensors file" in refusal(folder)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_not_unpickled(bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (bundle / "weights.safetensors").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    seal(bundle)
    assert "not a complete safetensors file" in refusal(bundle)
    assert not (tmp_path / "sprung").exists()
