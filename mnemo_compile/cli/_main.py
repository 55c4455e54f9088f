"""The group of all commands, and what becomes of their errors."""

import contextlib
import errno
import os
import sys
from collections.abc import Sequence

import rich_click as click

from .._version import version
from ..errors import MnemoError
from ._doctor import doctor
from ._download import download
from ._eval import evaluate
from ._export import export
from ._inspect import inspect
from ._meta_train import meta_train
from ._zoo import zoo

_MENDS = {
    errno.ENOSPC: "; free some space and try again",
    errno.EDQUOT: "; free some space and try again",
    errno.EACCES: "; change the permissions or name another place",
    errno.EROFS: "; name another place",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), prog_name="mnemo")
def mnemo() -> None:
    """Learned optimizers: meta-train one, compile it to PyTorch, optax, ONNX and StableHLO, keep it in a zoo.

    A REF names a cell: name, name@1.2.0, name@^1, or the folder of a bundle or of a run.

    \b
    Example:
      mnemo export mnemosyne-tiny --target torch --out build
    """


for command in (meta_train, evaluate, export, inspect, download, zoo, doctor):
    mnemo.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    **Arguments:**

    - `arguments`: what stands after `mnemo`; by default, that of this process.

    **Returns:**

    The exit code: 0 done, 1 the work failed, 2 the call was wrong, 130 stopped from the keyboard.
    """
    try:
        code = mnemo.main(arguments, prog_name="mnemo", standalone_mode=False)
        sys.stdout.flush()
        return code or 0
    except MnemoError as error:
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        help = f"; see: {context.command_path} --help" if context else ""
        return _fail(error.format_message().rstrip(".") + help, error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _fail("stopped", 130)
    except BrokenPipeError:
        _abandon_stdout()
        return 1
    except OSError as error:
        _abandon_stdout()
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}{_MENDS.get(error.errno or 0, '')}", 1)


def _fail(message: str, code: int) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return code


def _abandon_stdout() -> None:
    """Sends what cannot be printed nowhere, so that the interpreter does not try, and complain, again at its exit."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
