"""The names of families in records."""

from mnemo_compile.meta._records import family_names
from tests.meta.inner_loop.loops import FAMILIES, loop_of


def test_families_of_one_name_are_numbered() -> None:
    clusters = [
        {"network": {"kind": "mlp", "widths": [3]}, "data": {"kind": "clusters", "spread": s}} for s in (0.5, 1)
    ]
    loops = [loop_of(family) for family in (clusters[0], FAMILIES[4], clusters[1])]
    names = family_names(loops)
    assert names == ("mlp-3-relu clusters-16 #1", loops[1].family.name, "mlp-3-relu clusters-16 #2")
