"""Freezing: what goes into a bundle comes out of it, and has one digest."""

import hashlib
import json
import pathlib
import tempfile
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mnemo_compile.cell import cell_weights, with_weights
from mnemo_compile.errors import MnemoError, UsageError
from mnemo_compile.frozen import (
    bundle_bytes,
    BUNDLE_FILES,
    canonical_digest,
    freeze,
    FrozenCell,
    load_bundle,
    Manifest,
    rename,
    save,
)
from mnemo_compile.step import tile_slots

Freeze = Callable[..., FrozenCell]
SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_what_is_saved_is_what_is_loaded(freeze_small: Freeze, seed: int) -> None:
    frozen = freeze_small(seed)
    with tempfile.TemporaryDirectory() as folder:
        save(frozen, pathlib.Path(folder) / "bundle")
        loaded = load_bundle(pathlib.Path(folder) / "bundle")
    assert loaded.config == frozen.config
    assert (loaded.name, loaded.version, loaded.digest) == (frozen.name, frozen.version, frozen.digest)
    assert loaded.manifest.training == frozen.manifest.training
    assert loaded.weights.keys() == frozen.weights.keys()
    for name, weight in loaded.weights.items():
        assert weight.dtype == frozen.weights[name].dtype
        assert weight.shape == frozen.weights[name].shape
        assert weight.tobytes() == frozen.weights[name].tobytes()


def test_the_cell_of_a_bundle_has_its_weights(freeze_small: Freeze) -> None:
    frozen = freeze_small(3)
    for name, weight in cell_weights(frozen.cell()).items():
        np.testing.assert_array_equal(weight, frozen.weights[name])


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_the_same_cell_gives_the_same_bytes(freeze_small: Freeze, seed: int) -> None:
    assert bundle_bytes(freeze_small(seed)) == bundle_bytes(freeze_small(seed))


def test_saving_what_was_loaded_changes_no_byte(freeze_small: Freeze, bundle: pathlib.Path) -> None:
    before = {name: (bundle / name).read_bytes() for name in BUNDLE_FILES}
    save(load_bundle(bundle), bundle)
    assert {name: (bundle / name).read_bytes() for name in BUNDLE_FILES} == before


def test_the_digest_is_the_documented_one() -> None:
    weights = {"b.c": np.array([1.5, -2], np.float32), "a": np.array(3, np.float32)}
    expected = hashlib.sha256(
        b'{"kind":"x","size":2}\n'
        + b'["a","float32",[]]\n'
        + b"\x00\x00\x40\x40"
        + b'["b.c","float32",[2]]\n'
        + b"\x00\x00\xc0\x3f\x00\x00\x00\xc0"
    ).hexdigest()
    assert canonical_digest({"size": 2, "kind": "x"}, weights) == expected


@given(seed=SEEDS, order=st.randoms(use_true_random=False))
def test_the_digest_ignores_order_and_layout(seed: int, order) -> None:
    random = np.random.default_rng(seed)
    weights = {name: random.normal(size=(3, 4)).astype(np.float32) for name in "abc"}
    names = list(weights)
    order.shuffle(names)
    other = {name: np.asfortranarray(weights[name].astype(">f4")) for name in names}
    assert canonical_digest({"x": 1}, weights) == canonical_digest({"x": 1}, other)


@given(seed=SEEDS, bit=st.integers(0, 32 * 12 - 1))
def test_the_digest_changes_with_any_bit_name_or_shape(seed: int, bit: int) -> None:
    weight = np.random.default_rng(seed).normal(size=12).astype(np.float32)
    digest = canonical_digest({}, {"w": weight})
    raw = bytearray(weight.tobytes())
    raw[bit // 8] ^= 1 << bit % 8
    others = [
        canonical_digest({}, {"w": np.frombuffer(bytes(raw), np.float32)}),
        canonical_digest({}, {"v": weight}),
        canonical_digest({}, {"w": weight.reshape(3, 4)}),
        canonical_digest({}, {"w": weight.view(np.int32)}),
        canonical_digest({"x": 1}, {"w": weight}),
    ]
    assert digest not in others


def test_the_manifest_says_where_the_cell_comes_from(bundle: pathlib.Path) -> None:
    data = json.loads((bundle / "manifest.json").read_text())
    assert data["name"] == "small-cell"
    assert data["version"] == "1.0.0"
    assert data["license"] == "Apache-2.0"
    assert data["state_bytes"] == 4 * len(tile_slots(load_bundle(bundle).cell().memory_slots))
    assert data["training"]["command"] == "mnemo meta-train tiny --minutes 5"
    assert data["training"]["families"] == ["mlp", "convolution"]
    assert data["training"]["figures"] == {"validation loss": 0.25}
    assert {"jax", "numpy"} <= data["training"]["libraries"].keys()
    for name, record in data["files"].items():
        content = (bundle / name).read_bytes()
        assert record == {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def test_a_new_name_keeps_the_digest(freeze_small: Freeze) -> None:
    frozen = freeze_small()
    renamed = rename(frozen, name="other", version="2.0.1")
    assert (renamed.name, renamed.version) == ("other", "2.0.1")
    assert renamed.digest == frozen.digest
    assert isinstance(renamed.manifest, Manifest)


@pytest.mark.parametrize("name", ["", "Upper", "../up", "a/b", "a b", "-a", "a--b", "a" * 65, "a\n", "ä"])
def test_a_name_that_cannot_be_a_folder_is_refused(freeze_small: Freeze, name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        freeze_small(name=name)


@pytest.mark.parametrize("version", ["", "1", "1.0", "1.0.0.0", "01.0.0", "1.0.0-rc1", "v1.0.0", "1.0.x", "1.0.0\n"])
def test_a_version_that_is_none_is_refused(freeze_small: Freeze, version: str) -> None:
    with pytest.raises(UsageError, match="version"):
        freeze_small(version=version)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_frozen(freeze_small: Freeze, value: float) -> None:
    frozen = freeze_small()
    name = sorted(frozen.weights)[0]
    weights = {**frozen.weights, name: jnp.full(frozen.weights[name].shape, value)}
    cell = with_weights(frozen.cell(), {key: np.asarray(weight) for key, weight in weights.items()})
    with pytest.raises(MnemoError, match=f"{name} is not finite"):
        freeze(cell, name="a", version="1.0.0", training=frozen.manifest.training)
