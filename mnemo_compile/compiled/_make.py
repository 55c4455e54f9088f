"""Makes packages: compiles a cell, verifies the result, and keeps it in the cache."""

import atexit
import contextlib
import functools
import hashlib
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator

import filelock

from ..errors import MnemoError
from ..frozen import dump_document, FrozenCell, Identity
from ._address import Address, address_of, DIGITS
from ._fingerprint import sources_changed
from ._store import describe, keep, place, read_package, remove_unused

LOCK_SECONDS = 600
"""The longest wait for another process that makes the same package."""


def make(target: str, identity: Identity, load: Callable[[], FrozenCell]) -> tuple[Address, pathlib.Path]:
    """Makes the package of a cell, unless another process has made it meanwhile.

    **Arguments:**

    - `target`: `torch` or `optax`.
    - `identity`: that of the cell.
    - `load`: gives the cell.

    **Returns:**

    The address of the package, and its folder: in the cache, or where that cannot be written a temporary one.
    Raises `MnemoError` if the cell cannot be compiled or the result does not agree with it.
    """
    frozen = load()
    if frozen.identity != identity:
        raise MnemoError(f"{identity.name} {identity.version} was replaced while it was loaded; try again")
    if not type(frozen.config).__module__.startswith("mnemo_compile."):
        return _compile(target, frozen, None, "each process does this for a kind of cell of your own")
    address = address_of(target, identity)
    with _alone(address.folder):
        if read_package(place(address)) is not None:
            return address, place(address)
        return _compile(target, frozen, address, "this is done once")


def _compile(target: str, frozen: FrozenCell, address: Address | None, remark: str) -> tuple[Address, pathlib.Path]:
    """Without an address, the package gets one by its content."""
    from ..exporters import export

    _say(f"compiling {frozen.name} {frozen.version} for {target} and verifying it; {remark}")
    out = pathlib.Path(tempfile.mkdtemp(dir=_temporary_folder()))
    export(frozen, [target], out)
    document = describe(out / target, frozen.digest)
    if address is None:
        digest = hashlib.sha256(dump_document(document)).hexdigest()
        address = Address(target, frozen.name, frozen.version, digest[:DIGITS])
    if sources_changed():
        _say(f"the next process compiles {frozen.name} again, because sources of mnemo-compile have just changed")
        return address, out / target
    try:
        keep(out / target, document, place(address))
    except MnemoError as error:
        _say(f"the next process compiles {frozen.name} again, unless MNEMO_CACHE names another folder: {error}")
        return address, out / target
    shutil.rmtree(out, ignore_errors=True)
    remove_unused()
    return address, place(address)


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """Only one process at a time. Without a lock the same work is done twice, which harms nothing."""
    lock = filelock.FileLock(folder / "lock", timeout=LOCK_SECONDS)
    with contextlib.suppress(OSError, NotImplementedError):
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@functools.cache
def _temporary_folder() -> str:
    # It lives as long as the process, because packages read their weights when they first need them.
    folder = tempfile.mkdtemp(prefix="mnemo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _say(text: str) -> None:
    """One line on stderr, because this takes long."""
    print(text, file=sys.stderr, flush=True)
