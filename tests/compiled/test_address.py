"""The name of a module says which package it is."""

import importlib

import pytest
from hypothesis import given, strategies as st

from mnemo_compile.compiled._address import address_of, parse_module
from mnemo_compile.frozen import Identity

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,5}){0,4}", fullmatch=True)
VERSIONS = st.tuples(*[st.integers(0, 10**9 - 1)] * 3).map(lambda numbers: "{}.{}.{}".format(*numbers))
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(target=st.sampled_from(["torch", "optax"]), name=NAMES, version=VERSIONS, digest=DIGESTS)
def test_the_name_of_a_module_gives_the_address_back(target: str, name: str, version: str, digest: str) -> None:
    address = address_of(target, Identity(name, version, digest))
    assert parse_module(address.module) == address
    assert address.stem.isidentifier()
    assert (address.target, address.name, address.version) == (target, name, version)
    assert digest.startswith(address.digest)


@pytest.mark.parametrize(
    "module",
    [
        "mnemo_compile.compiled",
        "mnemo_compile.compiled._store",
        "mnemo_compile.compiled.torch_a_1_2_3_0123456789abcde",
        "mnemo_compile.compiled.torch_a_1_2_0123456789abcdef",
        "mnemo_compile.compiled.onnx_a_1_2_3_0123456789abcdef",
        "mnemo_compile.compiled.torch_a_1_2_3_0123456789abcdef._optimizer",
        "elsewhere.torch_a_1_2_3_0123456789abcdef",
        "torch_a_1_2_3_0123456789abcdef",
    ],
)
def test_other_names_are_not_addresses(module: str) -> None:
    assert parse_module(module) is None


def test_a_package_that_is_nowhere_is_named_in_one_sentence() -> None:
    address = address_of("torch", Identity("lost-cell", "1.2.3", "0123456789abcdef" * 4))
    with pytest.raises(ImportError) as caught:
        importlib.import_module(address.module)
    sentence = str(caught.value)
    assert caught.value.name == address.module
    assert "\n" not in sentence and address.stem in sentence and "lost-cell@1.2.3" in sentence
    assert "call mnemo_compile.to_torch" in sentence
