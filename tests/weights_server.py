"""A small HTTP server on 127.0.0.1 that misbehaves on demand, for tests of downloads."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Behavior = Callable[[BaseHTTPRequestHandler], None]


class FileServer:
    """Answers each path with its behaviors in turn, the last one for ever; keeps the requests."""

    def __init__(self) -> None:
        self.routes: dict[str, list[Behavior]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append((self.path, dict(self.headers)))
                behaviors = outer.routes.get(self.path, [status(404)])
                behavior = behaviors.pop(0) if len(behaviors) > 1 else behaviors[0]
                try:
                    behavior(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def serve(self, path: str, *behaviors: Behavior) -> str:
        """Set what `path` answers; returns its URL."""
        self.routes[path] = list(behaviors)
        return self.address + path

    def ranges(self) -> list[str | None]:
        """The Range header of every request so far."""
        return [headers.get("Range") for _, headers in self.requests]


def send(handler: BaseHTTPRequestHandler, code: int, headers: dict[str, str], body: bytes) -> None:
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def whole(data: bytes, *, etag: str = '"v1"', cut: int | None = None, drip: float = 0) -> Behavior:
    """A proper file with Range support; `cut` ends the connection after so many bytes of `data`."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        if handler.headers.get("If-Range", etag) != etag:
            start = 0
        headers = {"ETag": etag, "Content-Length": str(len(data) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        send(handler, 206 if start else 200, headers, b"")
        body = data[start:cut]
        for at in range(0, len(body), 65536):
            handler.wfile.write(body[at : at + 65536])
            if drip:
                time.sleep(drip)

    return answer


def without_range(data: bytes) -> Behavior:
    """The whole file always, whatever range was asked."""
    return lambda h: send(h, 200, {"Content-Length": str(len(data))}, data)


def status(code: int, headers: dict[str, str] | None = None) -> Behavior:
    """An error."""
    return lambda h: send(h, code, {"Content-Length": "0", **(headers or {})}, b"")


def raw(code: int, headers: dict[str, str], body: bytes) -> Behavior:
    """Exactly these headers and bytes."""
    return lambda h: send(h, code, headers, body)


def stalled(data: bytes, sent: int, release: threading.Event) -> Behavior:
    """The first `sent` bytes of a file, and the rest after `release`, so that no test races it."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        headers = {"ETag": '"v1"', "Content-Length": str(len(data))}
        send(handler, 200, headers, data[:sent])
        handler.wfile.flush()
        release.wait(120)
        handler.wfile.write(data[sent:])

    return answer


def late(seconds: float, then: Behavior) -> Behavior:
    """The answer after a wait."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        then(handler)

    return answer
