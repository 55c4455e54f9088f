"""Reads the bytes of a zoo from a folder, from HTTP, or from any other file system that fsspec knows."""

import os
from typing import Any

import fsspec
import fsspec.core

from ..errors import MnemoError

TIMEOUT_SECONDS = 30.0
"""The longest wait for a connection, and for the next bytes of an answer."""
OFFLINE = "MNEMO_OFFLINE"


def is_local(location: str) -> bool:
    """Whether a location is on this machine."""
    return fsspec.core.split_protocol(location)[0] in (None, "file", "local")


def join(location: str, relative: str) -> str:
    """The location of a file of a zoo."""
    return f"{location.rstrip('/')}/{relative}"


def read_bytes(location: str, limit: int) -> bytes:
    """The bytes at a location, at most `limit + 1` of them, so that the caller sees that a file is too long.

    Raises `FileNotFoundError` if there is no such file, and `MnemoError` for any other failure.
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
    # Each file system of fsspec has its own errors.
    except Exception as error:
        fix = "check its permissions" if local else "check the address and the network, and try again"
        raise MnemoError(f"{location} cannot be read ({_reason(error)}); {fix}") from None


def _reason(error: Exception) -> str:
    # The message of aiohttp repeats the whole request; the status is enough.
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
        # One plain request: a block size of 0 streams the file, and a size in the call saves the request for it.
        return _read_file(filesystem, location, limit, block_size=0, size=1)
    except aiohttp.ClientPayloadError:
        raise MnemoError(f"{location} broke off before its end; try again") from None


def _read_file(filesystem: Any, path: str, limit: int, **options: int) -> bytes:
    content = bytearray()
    with filesystem.open(path, "rb", **options) as file:
        while len(content) <= limit and (block := file.read(limit + 1 - len(content))):
            content += block
    return bytes(content)
