"""Compiling the programs of a run."""

import os
import pathlib
import subprocess
import sys

import pytest

from mnemo_compile.errors import MnemoError
from mnemo_compile.meta import _compilation, load_config
from mnemo_compile.meta._meta_step import MetaStep


@pytest.mark.slow
def test_a_lack_of_memory_maps_is_reported(
    config: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = tmp_path / "few"
    few.write_text("100")
    monkeypatch.setattr(_compilation, "MOST_MAPS", few)
    monkeypatch.setattr(_compilation, "MAPS", config)
    MetaStep(load_config(str(config)))
    maps = tmp_path / "maps"
    maps.write_text("one\n" * 91)
    monkeypatch.setattr(_compilation, "MAPS", maps)
    with pytest.raises(MnemoError, match="91 of the 100 memory maps .* sysctl") as caught:
        MetaStep(load_config(str(config)))
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(_compilation, "MAPS", tmp_path / "not there")
    MetaStep(load_config(str(config)))


@pytest.mark.slow
def test_a_second_start_compiles_nothing_again(config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment["MNEMO_CACHE"] = str(tmp_path / "cache")
    kept = []
    for run in ("first", "second"):
        command = [sys.executable, "-m", "mnemo_compile", "meta-train", str(config), "--out", str(tmp_path / run)]
        subprocess.run([*command, "--steps", "1"], check=True, capture_output=True, env=environment)
        kept.append({p.name for p in (tmp_path / "cache/programs").iterdir() if p.name.endswith("-cache")})
    assert kept[0] and kept[0] == kept[1]
