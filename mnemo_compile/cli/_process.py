"""The command line as a process: how it ends, also by a signal."""

import shlex
import sys
from collections.abc import Sequence

from .._interrupts import end, EXIT_CODE, going_on_with, ignore_signals, watch_signals


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    **Arguments:**

    - `arguments`: the words after `mnemo`; by default those of this process, which a signal then ends.

    **Returns:**

    The exit code: 0 done, 1 the work failed, 2 the call was wrong, 130 stopped by Ctrl-C or SIGTERM.
    """
    owns_process = arguments is None
    words = sys.argv[1:] if arguments is None else list(arguments)
    if owns_process:
        watch_signals()
    with going_on_with(lambda: shlex.join(["mnemo", *words])):
        # Imported here, so that Ctrl-C is understood from the first moment on.
        from ._main import run

        try:
            code = run(words)
        except KeyboardInterrupt as stopped:
            line = str(stopped) or None
            if owns_process:
                end(line)
            print(line or "stopped", file=sys.stderr)
            return EXIT_CODE
    if owns_process:
        ignore_signals()
    return code
