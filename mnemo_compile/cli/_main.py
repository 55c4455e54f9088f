"""The group of all commands. It turns errors into one sentence and an exit code."""

import contextlib
import errno
import os
import sys
from collections.abc import Sequence

import click
import rich_click

from .._version import version
from ..errors import MnemoError
from ._doctor import doctor
from ._download import download
from ._eval import evaluate
from ._export import export
from ._inspect import inspect
from ._meta_train import meta_train
from ._plan import plan
from ._zoo import zoo

_FIXES = {
    errno.ENOSPC: "; free some space and try again",
    errno.EDQUOT: "; free some space and try again",
    errno.EACCES: "; change the permissions or name another place",
    errno.EROFS: "; name another place",
}


@rich_click.group(context_settings={"help_option_names": ["-h", "--help"]})
@rich_click.version_option(version(), prog_name="mnemo")
@rich_click.command_panel("Use a cell", commands=["export", "plan", "inspect", "download"])
@rich_click.command_panel("Make a cell", commands=["meta-train", "eval", "zoo"])
@rich_click.command_panel("This installation", commands=["doctor"])
def mnemo() -> None:
    """Learned optimizers for PyTorch, optax, ONNX and StableHLO.

    \b
    The shortest way to use one, in Python:
      Mnemosyne = mnemo_compile.to_torch("mnemosyne-base")
      optimizer = Mnemosyne(model.parameters(), total_steps=1000)

    \b
    As code that stands alone. Example:
      mnemo export mnemosyne-base --target torch --out build

    A REF is name, name@1.2.0, name@^1, or the folder of a bundle or of a run.
    """


for command in (export, plan, inspect, meta_train, evaluate, zoo, download, doctor):
    mnemo.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Runs the words after `mnemo`, and gives the exit code. An interruption is a `KeyboardInterrupt`."""
    try:
        code = mnemo.main(list(arguments), prog_name="mnemo", standalone_mode=False)
        sys.stdout.flush()
        return code or 0
    except MnemoError as error:
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        help = f"; see: {context.command_path} --help" if context else ""
        return _fail(error.format_message().rstrip(".") + help, error.exit_code)
    except click.Abort as abort:
        # What it came from is set as its context, and hidden.
        raise abort.__context__ or KeyboardInterrupt from None
    except BrokenPipeError:
        _abandon_stdout()
        return 1
    except OSError as error:
        _abandon_stdout()
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}{_FIXES.get(error.errno or 0, '')}", 1)


def _fail(message: str, code: int) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return code


def _abandon_stdout() -> None:
    """Discards output that cannot be printed, so that the interpreter does not try again, and complain, at its exit."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
