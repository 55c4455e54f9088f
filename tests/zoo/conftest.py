"""A zoo in a folder, and a web server that serves it well or badly."""

import collections
import contextlib
import dataclasses
import functools
import http.server
import pathlib
import threading
from collections.abc import Callable, Iterator

import pytest

from mnemo_compile.frozen import FrozenCell
from mnemo_compile.zoo import publish


@pytest.fixture
def zoo_folder(freeze_small: Callable[..., FrozenCell], tmp_path: pathlib.Path) -> pathlib.Path:
    """A zoo with small-cell 0.9.0, 1.0.0 and 1.2.0 and other-cell 1.0.0."""
    folder = tmp_path / "zoo"
    for seed, version in enumerate(("1.2.0", "0.9.0", "1.0.0")):
        publish(freeze_small(seed), folder, name="small-cell", version=version)
    publish(freeze_small(9), folder, name="other-cell", version="1.0.0", description="Another one.")
    return folder


@dataclasses.dataclass
class Server:
    """What a web server on the loopback is to do, and what it was asked for."""

    url: str = ""
    faults: dict[str, str] = dataclasses.field(default_factory=dict)
    """By the end of a path: `truncate`, `flip`, `longer`, `missing`, `broken` or `stall`."""
    asked: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    stalled: threading.Event = dataclasses.field(default_factory=threading.Event)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a folder with the faults of a `Server`."""

    def __init__(self, server: Server, folder: pathlib.Path, *arguments):
        self.plan, self.folder = server, folder
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.plan.asked[self.path] += 1
        fault = next((fault for end, fault in self.plan.faults.items() if self.path.endswith(end)), None)
        path = self.folder / self.path.lstrip("/")
        if fault == "missing" or not path.is_file():
            self.send_error(404)
            return
        if fault == "broken":
            self.send_error(503)
            return
        if fault == "stall":
            self.plan.stalled.wait(20)
            return
        content = bytearray(path.read_bytes())
        if fault == "flip":
            content[len(content) // 2] ^= 1
        if fault == "longer":
            content += b"\0"
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content[: len(content) // 2] if fault == "truncate" else content)

    def log_message(self, format: str, *args) -> None:
        """Says nothing."""


@pytest.fixture
def server(zoo_folder: pathlib.Path) -> Iterator[Server]:
    """Serves the zoo on the loopback."""
    plan = Server()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, plan, zoo_folder)) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        plan.url = f"http://127.0.0.1:{httpd.server_address[1]}"
        try:
            yield plan
        finally:
            plan.stalled.set()
            httpd.shutdown()
            thread.join()
