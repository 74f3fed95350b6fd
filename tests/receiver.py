"""An address that is told over HTTP, on a free port of this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """What came, and what is answered.

    Args:
        answers: status of each coming request; 200 once they are used up.
        silent: while it is set, nobody gets an answer.
    """

    url: str = ""
    answers: list[int] = field(default_factory=list)
    requests: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    silent: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def told(self) -> list[dict[str, Any]]:
        """The bodies of all requests, read as JSON."""
        return [json.loads(body) for _, body in self.requests]

    @property
    def texts(self) -> list[str]:
        return [body["text"] for body in self.told]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Receive until the end of this block."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.requests.append((dict(self.headers), body))
            if receiver.silent.is_set():
                receiver.over.wait(20)
            status = receiver.answers.pop(0) if receiver.answers else 200
            self.send_response(status)
            if status == 302:
                self.send_header("location", receiver.url)
            self.end_headers()

        def do_GET(self) -> None:
            """Where a client comes that follows a redirection, without what it had to say."""
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_port}/token-in-the-path"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.over.set()
        server.shutdown()
        server.server_close()
