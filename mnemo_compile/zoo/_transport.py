"""Bytes from wherever a zoo lies: a folder, http, or what else fsspec knows."""

import os
from typing import Any

import fsspec
import fsspec.core

from ..errors import MnemoError

TIMEOUT_SECONDS = 30.0
"""Longest wait for a connection, and for the next bytes of an answer."""
OFFLINE = "MNEMO_OFFLINE"


def is_local(location: str) -> bool:
    """Whether a location is on this machine."""
    return fsspec.core.split_protocol(location)[0] in (None, "file", "local")


def join(location: str, relative: str) -> str:
    """The location of a file of a zoo."""
    return f"{location.rstrip('/')}/{relative}"


def read_bytes(location: str, limit: int) -> bytes:
    """The bytes at a location. At most `limit + 1` of them, so that a file that is too long shows.

    Raises [`MnemoError`][] for whatever keeps them from being read, and `FileNotFoundError` where there are none.
    """
    local = is_local(location)
    if not local and os.environ.get(OFFLINE, "0") not in ("", "0"):
        raise MnemoError(f"{location} is not read because {OFFLINE} is set; unset it or name a zoo in a folder")
    try:
        return _read(location, limit)
    except (FileNotFoundError, MnemoError):
        raise
    except TimeoutError:
        raise MnemoError(f"{location} did not answer within {TIMEOUT_SECONDS:g} seconds; try again later") from None
    except ImportError as error:
        raise MnemoError(f"{location} needs a package that is not installed: {error}") from None
    # Each of fsspec's backends has errors of its own, and none of them is a fault of this program.
    except Exception as error:
        mend = "look at its permissions" if local else "look at the address and the network, and try again"
        raise MnemoError(f"{location} cannot be read ({_reason(error)}); {mend}") from None


def _reason(error: Exception) -> str:
    # aiohttp's errors for a status say the whole request; the status is enough.
    status = getattr(error, "status", None)
    return f"status {status}" if status else " ".join(str(error).split()) or type(error).__name__


def _read(location: str, limit: int) -> bytes:
    protocol = fsspec.core.split_protocol(location)[0]
    if protocol in ("http", "https"):
        return _read_http(protocol, location, limit)
    filesystem, path = fsspec.core.url_to_fs(location)
    return _read_file(filesystem, path, limit)


def _read_http(protocol: str, location: str, limit: int) -> bytes:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_SECONDS, sock_read=TIMEOUT_SECONDS)
    filesystem = fsspec.filesystem(protocol, client_kwargs={"timeout": timeout, "trust_env": True})
    try:
        # One plain request: a block size of 0 streams, and a size that is given is not asked for.
        return _read_file(filesystem, location, limit, block_size=0, size=1)
    except aiohttp.ClientPayloadError:
        raise MnemoError(f"{location} broke off before its end; try again") from None


def _read_file(filesystem: Any, path: str, limit: int, **options: int) -> bytes:
    content = bytearray()
    with filesystem.open(path, "rb", **options) as file:
        while len(content) <= limit and (block := file.read(limit + 1 - len(content))):
            content += block
    return bytes(content)
