"""Configurations of Mnemosyne that do not fit are refused in one sentence."""

from typing import Any

import pydantic
import pytest

from mnemo_compile.cell import cell_config
from mnemo_compile.step import ROLES, TILED


def refused(**settings: Any) -> str:
    """The message of the only error."""
    with pytest.raises(pydantic.ValidationError) as caught:
        cell_config({"kind": "mnemosyne", **settings})
    (error,) = caught.value.errors()
    assert "\n" not in error["msg"]
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"


@pytest.mark.parametrize("role", ROLES)
def test_a_coordinate_has_keys_of_its_own_only_where_there_are_no_tiles(role: str) -> None:
    cell_config({"kind": "mnemosyne", "coordinate_wise": [role], "prior": {"tile": 0}})
    if role in TILED:
        message = refused(coordinate_wise=["vector", role])
        assert f"coordinate_wise holds {role}, whose tiles need a memory of the tensor" in message
        assert "leave it out, or set tile = 0 in the prior" in message
    else:
        assert cell_config({"kind": "mnemosyne", "coordinate_wise": [role]}).build().tile == 128


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"nonsense": 1}, "nonsense: Extra inputs are not permitted"),
        ({"prior": {"matrix_step": 0.1}}, "prior.matrix_step: Extra inputs are not permitted"),
        ({"prior": {"steps": {"bias": 0.1}}}, "prior.steps.bias: Extra inputs are not permitted"),
        ({"prior": {"tile": -1}}, "prior.tile: Input should be greater than or equal to 0"),
        ({"prior": {"pretrained": 0.0}}, "prior.pretrained: Input should be greater than 0"),
        ({"prior": {"annealing": "step"}}, "prior.annealing: Input should be 'cosine' or 'linear'"),
        ({"momentum": [], "coordinate_wise": ["vector"]}, "coordinate_wise needs a memory of gradients"),
        ({"momentum": [], "agreement": True}, "agreement = true compares with a memory of gradients"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(settings: dict[str, Any], named: str) -> None:
    assert named in refused(**settings)
