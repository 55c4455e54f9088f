"""What the tests of more than one part share."""

import os
import pathlib
import signal
from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest
from jax._src.lru_cache import LRUCache

from mnemo_compile.cell import cell_config, cell_weights, with_weights
from mnemo_compile.frozen import freeze, FrozenCell, save, Training
from mnemo_compile.verify import Reference

# Triton reads this when it is imported. Its interpreter runs kernels where there is no GPU.
os.environ.setdefault("TRITON_INTERPRET", "1")
# The processes of a run share the cores. Threads of NumPy that wait for each other took most of a verification.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

SMALL = {"kind": "mnemosyne", "token": 4, "meta_tokens": 2, "random_features": 2, "context": 4, "hidden": 2}
"""A cell with as few weights as one can have."""

PROGRAMS_OF_FEW_RUNS = ("cell", "meta", "properties", "step")
"""Folders of tests whose programs take longer to be compiled than to run, and that are not about a target."""

Freeze = Callable[..., FrozenCell]


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One folder of compiled programs for all tests of the run and the processes they start: many export the same cell
    or meta-train the same family, and to compile is most of their time."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "xla"
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        # With a limit it is locked, and nothing is read that is half written.
        "jax_compilation_cache_max_size": 2**32,
    }
    for name, value in settings.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)
    # Here small programs are kept too. To look through the folder for what to remove, at each, would take longer than
    # they do, and a run stays far below the limit.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    LRUCache._evict_if_needed = lambda self, *, additional_size=0: None


@pytest.fixture(scope="module", autouse=True)
def optimizations(request: pytest.FixtureRequest) -> Iterator[None]:
    """XLA leaves most optimizations out where they do not pay. A program means the same at each level."""
    folder = request.path.relative_to(pathlib.Path(__file__).parent).parts[0]
    jax.config.update("jax_disable_most_optimizations", folder in PROGRAMS_OF_FEW_RUNS)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Ctrl-C reaches the processes that tests start, also where the tests run in the background of a shell."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def freeze_small() -> Freeze:
    """Freezes a small cell with random weights: `freeze_small(seed, name=…, version=…)`."""
    template = cell_config(SMALL).build()

    def freeze_seeded(seed: int = 0, name: str = "small-cell", version: str = "1.0.0") -> FrozenCell:
        random = np.random.default_rng(seed)
        weights = {}
        for key, value in cell_weights(template).items():
            noise = random.normal(size=value.shape)
            # Steps of any size would diverge, and so would directions of any discount.
            is_bounded = key.startswith(("prior.", "direction."))
            weights[key] = (value + 0.1 * noise if is_bounded else noise).astype(value.dtype)
        training = Training(
            command="mnemo meta-train tiny --minutes 5",
            preset="tiny",
            seed=seed,
            meta_steps=10,
            minutes=5,
            families=("mlp", "convolution"),
            figures={"validation loss": 0.25},
        )
        return freeze(with_weights(template, weights), name=name, version=version, training=training)

    return freeze_seeded


@pytest.fixture
def bundle(freeze_small: Freeze, tmp_path: pathlib.Path) -> pathlib.Path:
    """The folder of a bundle."""
    folder = tmp_path / "bundle"
    save(freeze_small(), folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A cache of the test's own, and the network as it is."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MNEMO_CACHE", str(folder))
    monkeypatch.delenv("MNEMO_OFFLINE", raising=False)
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short trajectory, for tests that are not about its length."""
    monkeypatch.setattr(Reference.__init__, "__kwdefaults__", {"seed": 0, "steps": 6})
