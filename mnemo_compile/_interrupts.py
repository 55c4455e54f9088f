"""Ctrl-C and SIGTERM in the process of a command line: what is unfinished goes, and the process ends within seconds.

No exception is raised, because imports of C extensions, callbacks of XLA and destructors would swallow it or crash. The
handler itself ends the process. Python runs it when the main thread comes back from C++, which takes minutes where XLA
compiles, so a thread ends the process if the main thread does not.
"""

import contextlib
import itertools
import os
import pathlib
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

EXIT_CODE = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 1.0
"""Seconds that the main thread has to end the process after a signal."""
GRACE = 10.0
"""Seconds that an interruptible block has to end after the first signal."""

_clean_ups: list[Callable[[], object]] = []
_commands: list[Callable[[], str]] = []
_interruptible: list[Iterator[int]] = []
"""The interruptible blocks, the innermost last. Each counts the signals that the watching thread has seen."""
_ending = threading.RLock()
"""Whoever holds it ends the process, or does not want it to end."""
_uninterrupted: list[int] = []
"""The thread of each uninterrupted block."""
_late: list[int] = []
"""Signals that came in an uninterrupted block."""


@contextlib.contextmanager
def cleaned_up(action: Callable[[], object]) -> Iterator[None]:
    """Runs an action when the block ends, also if a signal ends the process in the middle of it."""
    _clean_ups.append(action)
    try:
        yield
    finally:
        action()
        _clean_ups.remove(action)


@contextlib.contextmanager
def temporary_folder(place: pathlib.Path, prefix: str, suffix: str = "") -> Iterator[pathlib.Path]:
    """A new folder in another, removed with all that it holds when the block ends."""
    with contextlib.ExitStack() as stack:
        with uninterrupted():
            folder = pathlib.Path(tempfile.mkdtemp(suffix, prefix, place))
            stack.enter_context(cleaned_up(lambda: shutil.rmtree(folder, ignore_errors=True)))
        yield folder


@contextlib.contextmanager
def going_on_with(command: Callable[[], str]) -> Iterator[None]:
    """In this context, the end says that this command line goes on with the work."""
    _commands.append(command)
    try:
        yield
    finally:
        _commands.remove(command)


@contextlib.contextmanager
def interruptible() -> Iterator[list[int]]:
    """A list that gets the first signal. The next one does what it did before, and so does time after the first."""
    received: list[int] = []

    def receive(number: int, frame: object) -> None:
        received.append(number)
        restore()

    def restore() -> None:
        for name, handler in before.items():
            signal.signal(name, handler)

    before = {}
    # No signal arrives on another thread, and none can be waited for there.
    if threading.current_thread() is threading.main_thread():
        before = {name: signal.signal(name, receive) for name in SIGNALS}
    noticed = itertools.count(1)
    _interruptible.append(noticed)
    try:
        yield received
    finally:
        _interruptible.remove(noticed)
        restore()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """The end that a signal asks for waits for the end of the block, which has to be short."""
    with _ending:
        _uninterrupted.append(threading.get_ident())
        try:
            yield
        finally:
            _uninterrupted.pop()
    if _late and not _uninterrupted:
        end()


def watch_signals() -> None:
    """From now on, a signal ends this process. The main thread has to call this."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for name in SIGNALS:
        # A process in the background may have been told to ignore them.
        if signal.getsignal(name) != signal.SIG_IGN:
            signal.signal(name, _handle)
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_release_child)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()


def ignore_signals() -> None:
    """From now on a signal does nothing, as nothing is left to be done."""
    for name in SIGNALS:
        signal.signal(name, signal.SIG_IGN)


def end(line: str | None = None) -> NoReturn:
    """Ends the process with a line that says how to go on.

    The interpreter's own exit would wait for threads that compile, or crash beneath them.
    """
    _ending.acquire()
    for action in reversed(_clean_ups):
        with contextlib.suppress(Exception):
            action()
    if line is None:
        line = f"stopped; go on with: {_commands[-1]()}" if _commands else "stopped"
    with contextlib.suppress(OSError):
        # A table that is kept up to date hides the cursor of a terminal.
        start = "\n\x1b[?25h" if os.isatty(2) else ""
        os.write(2, f"{start}{line}\n".encode())
    os._exit(EXIT_CODE)


def _handle(number: int, frame: object) -> None:
    if threading.get_ident() in _uninterrupted:
        _late.append(number)
        return
    end()


def _watch(reading: int) -> None:
    """Ends the process some time after a signal, if the main thread has not."""
    while True:
        if os.read(reading, 1)[0] not in SIGNALS:
            continue
        block = _interruptible[-1] if _interruptible else None
        if block is None or next(block) > 1:
            break
        with contextlib.suppress(OSError):
            os.write(2, b"stopping; a second Ctrl-C ends at once\n")
        threading.Thread(target=_end_later, args=(block,), daemon=True).start()
    time.sleep(PATIENCE)
    end()


def _end_later(block: Iterator[int]) -> None:
    time.sleep(GRACE)
    if block in _interruptible:
        end()


def _hold() -> None:
    """Signals wait. A process that was forked would else tell this one of those that it gets at first."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _release_child() -> None:
    """A process that is forked ends at once, and says nothing."""
    signal.set_wakeup_fd(-1)
    for name in SIGNALS:
        if signal.getsignal(name) == _handle:
            signal.signal(name, signal.SIG_DFL)
    _release()
