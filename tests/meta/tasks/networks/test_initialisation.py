"""Two customs of how large weights start."""

import math

import pytest
from hypothesis import given, strategies as st

from mnemo_compile.meta.tasks import Supervised, SupervisedConfig, Tensor
from mnemo_compile.meta.tasks.networks import initialise

TEXT = {"kind": "markov", "symbols": 12}


def family(initialisation: str, depth: int = 3) -> Supervised:
    network = {"kind": "transformer", "width": 16, "depth": depth}
    config = {"network": network, "data": TEXT, "initialisation": initialisation}
    return SupervisedConfig.model_validate(config).build()


@given(st.integers(1, 900), st.integers(1, 900), st.floats(0.1, 2))
def test_a_fixed_start_is_the_gain_times_a_constant(rows: int, columns: int, gain: float) -> None:
    tensor = Tensor((rows, columns), gain * rows**-0.5, name="body.weight")
    (fixed,) = initialise([tensor], "fixed")
    if tensor.deviation != 0.02:
        assert fixed.deviation == pytest.approx(0.02 * gain) and fixed.name == tensor.name
    assert initialise([tensor], "fan-in") == (tensor,)


def test_a_fixed_start_is_that_of_gpt_2() -> None:
    deviations = {tensor.name: tensor.deviation for tensor in family("fixed").tensors}
    for name in ("token_embedding.weight", "position_embedding.weight", "head.weight", "blocks.1.mlp.up.weight"):
        assert deviations[name] == pytest.approx(0.02)
    for name in ("blocks.1.attention.out.weight", "blocks.1.mlp.down.weight"):
        assert deviations[name] == pytest.approx(0.02 / math.sqrt(2 * 3))
    for one, other in zip(family("fixed").tensors, family("fan-in").tensors, strict=True):
        assert one._replace(deviation=0) == other._replace(deviation=0)
        assert (one.deviation == 0) == (other.deviation == 0)


def test_a_config_with_the_default_keeps_its_digest() -> None:
    config = SupervisedConfig.model_validate({"network": {"kind": "mlp", "widths": [4]}, "data": {"kind": "iris"}})
    assert not {"initialisation", "activations"} & set(config.model_dump())
    other = config.model_copy(update={"initialisation": "fixed", "activations": "bfloat16"})
    assert SupervisedConfig.model_validate_json(other.model_dump_json()) == other
    assert "fixed" in other.build().name and "bfloat16" in other.build().name
