"""The paper's large networks on one GPU of 80 GB: times, memory, and the optimizer's share, beside fused AdamW.

Weights and data are random. What is needed is torch, transformers, and an exported optimizer; nothing is downloaded.

mnemo export mnemosyne-base --target torch --out build
python -m benchmarks.gpu vit-huge build/torch            # fine-tuning of 632 million parameters
python -m benchmarks.gpu t5-xxl build/torch              # a soft prompt for 11 billion frozen ones
python -m benchmarks.gpu bert-large build/torch          # pre-training of 335 million
python -m benchmarks.gpu all build/torch --tiny          # tiny sizes, also without a GPU

Where the folder has several packages, pass that of one, such as build/torch/mnemosyne_base.
"""

import argparse
import pathlib

from ._measure import device_of, load_one, measure
from ._networks import NETWORKS


def main() -> None:
    """Prints a line and writes JSON for each network and optimizer."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", choices=[*NETWORKS, "all"])
    parser.add_argument("package", type=pathlib.Path, help="the folder of an exported torch package")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpu"), help="folder of the JSON files")
    parser.add_argument("--steps", type=int, default=20, help="that are timed, at most")
    parser.add_argument("--seconds", type=float, default=100, help="per network and optimizer, with the making of it")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, which need no GPU")
    arguments = parser.parse_args()
    device = device_of(is_tiny=arguments.tiny)
    exported = load_one(arguments.package)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in NETWORKS if arguments.network == "all" else [arguments.network]:
        run = NETWORKS[name](device, is_tiny=arguments.tiny)
        out = arguments.out / f"{name}.json"
        measure(run, exported, device, steps=arguments.steps, seconds=arguments.seconds, out=out)


if __name__ == "__main__":
    main()
