"""Law 9 on networks up to 100 million parameters, on one GPU that may have no network.

python -m benchmarks.large_ladder wheels FOLDER                 # with a network: what `run` needs beside JAX
python -m benchmarks.large_ladder run REF --out OUT             # on the GPU: at most eight minutes
python -m benchmarks.large_ladder run REF --out OUT --baselines # AdamW and Muon first, each with the limit
python -m benchmarks.large_ladder run REF --out OUT --ladder tiny.toml   # another ladder, such as a tiny one

On the GPU put the wheels on the path first: `python -m pip install --no-index --no-deps --target SITE FOLDER/*.whl` and
`PYTHONPATH=SITE`. Every training is kept in OUT/cache as it comes, and eval.json and report.md are written anew after
it. The same command goes on where it stopped. Multiplier 1 of every rung comes first, so a run that ends early says
most.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

WHEELS = (
    "equinox",
    "jaxtyping",
    "wadler-lindig",
    "optax",
    "absl-py",
    "orbax-checkpoint",
    "etils",
    "tensorstore",
    "simplejson",
    "humanize",
    "msgpack",
    "nest-asyncio",
    "cloudpickle",
    "uvloop",
    "psutil",
    "tensorboardX",
    "protobuf",
    "pydantic",
    "pydantic-core",
    "annotated-types",
    "typing-inspection",
    "typing-extensions",
    "filelock",
    "platformdirs",
    "safetensors",
    "click",
    "rich",
    "rich-click",
    "pygments",
    "markdown-it-py",
    "mdurl",
    "matplotlib",
    "contourpy",
    "cycler",
    "fonttools",
    "kiwisolver",
    "packaging",
    "pillow",
    "pyparsing",
    "python-dateutil",
    "six",
)
"""What an evaluation imports, but JAX and NumPy, which come with the GPU's driver."""


def wheels(folder: pathlib.Path, python: str) -> None:
    """Downloads them for Linux on x86-64, in the versions that are installed here."""
    from importlib.metadata import PackageNotFoundError, version

    def pinned(name: str) -> str:
        try:
            return f"{name}=={version(name)}"
        except PackageNotFoundError:
            return name

    platforms = [f"manylinux_2_{minor}_x86_64" for minor in (34, 28, 27, 17, 12, 5)]
    platforms += ["manylinux2014_x86_64", "manylinux1_x86_64"]
    options = [part for platform in platforms for part in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    subprocess.run([*command, "--python-version", python, *options, *map(pinned, WHEELS)], check=True)


def run(arguments: argparse.Namespace) -> None:
    """Trains, within the limits of time."""
    out: pathlib.Path = arguments.out
    os.environ["MNEMO_CACHE"] = str(out / "cache")
    # Compiled programs are large, and of no use elsewhere.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "programs"))
    package, minutes = [sys.executable, "-m"], ["--minutes", str(arguments.minutes)]
    if arguments.baselines:
        ladder = [*([arguments.ladder] if arguments.ladder else []), "--rungs", "large", "--in-cache"]
        subprocess.run([*package, "mnemo_compile.meta.evaluation.ladder", *ladder, *minutes], check=True)
    options = ["--suite", arguments.ladder or "ladder", "--rungs", "large", "--out", str(out)]
    subprocess.run([*package, "mnemo_compile", "eval", arguments.ref, *options, *minutes], check=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    download = commands.add_parser("wheels")
    download.add_argument("folder", type=pathlib.Path)
    download.add_argument("--python", default="3.12", help="version of Python on the GPU's machine")
    download.set_defaults(call=lambda given: wheels(given.folder, given.python))
    train = commands.add_parser("run")
    train.add_argument("ref", metavar="REF")
    train.add_argument("--out", type=pathlib.Path, required=True)
    train.add_argument("--minutes", type=float, default=7.5, help="begin no training that would end later")
    train.add_argument("--baselines", action="store_true")
    train.add_argument("--ladder", help="path of a TOML file, in place of the large networks")
    train.set_defaults(call=run)
    arguments = parser.parse_args()
    arguments.call(arguments)


if __name__ == "__main__":
    main()
