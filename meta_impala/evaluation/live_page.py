"""A web page on this machine's loopback address that shows the newest frame, live.

The picture of the page is a `multipart/x-mixed-replace` response, which every browser shows as it
comes: no script. Only 127.0.0.1 is listened on, so that no other machine can connect.
"""

from __future__ import annotations

import html
import http.server
import io
import threading
from types import TracebackType
from typing import Any

from PIL import Image

from meta_impala.errors import UserError, one_line

ADDRESS = "127.0.0.1"
_BOUNDARY = "frame"
_JPEG_QUALITY = 90
_SECONDS_TO_SEND = 10.0
# Browsers open a few connections each; this is for one person.
_MOST_STREAMS = 16

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>meta-impala watch</title>
<style>
body {{ margin: 0; min-height: 100vh; display: flex; align-items: center;
  justify-content: center; background: #121418; color: #ececec; font-family: sans-serif; }}
img {{ max-width: 100%; height: auto; }}
</style>
</head>
<body>
<img src="/live" alt="{text}: the game, and beside it gamma, lambda, value and policy">
</body>
</html>
"""


class FrameFeed:
    """The newest frame, for any number of readers; older ones are gone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame, self._number, self._closed = b"", 0, False
        self._streams = 0

    def publish(self, frame: bytes) -> None:
        """Replaces the newest frame, a JPEG file."""
        with self._changed:
            self._frame, self._number = frame, self._number + 1
            self._changed.notify_all()

    def wait(self, after: int) -> tuple[int, bytes] | None:
        """The newest frame, as soon as its number is above `after`; None once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._number > after)
            return None if self._closed else (self._number, self._frame)

    def close(self) -> None:
        """Ends the waiting of all readers."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def enter(self) -> bool:
        """Counts a reader in; False if there are too many."""
        with self._changed:
            self._streams += 1
            return self._streams <= _MOST_STREAMS

    def leave(self) -> None:
        """Counts a reader out."""
        with self._changed:
            self._streams -= 1


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, feed: FrameFeed, title: str) -> None:
        self.feed, self.title = feed, title
        super().__init__((ADDRESS, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "meta-impala", ""
    timeout = _SECONDS_TO_SEND

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/":
            self._send("text/html; charset=utf-8", _PAGE.format(text=self.server.title).encode())
        elif path == "/frame.jpg":
            newest = self.server.feed.wait(0)
            if newest is not None:
                self._send("image/jpeg", newest[1])
        elif path == "/live":
            self._stream()
        else:
            self.send_error(404)

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        feed = self.server.feed
        try:
            if not feed.enter():
                self.send_error(503, "too many viewers")
                return
            self.send_response(200)
            self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            # A browser shows a part when its end has come, which is the next boundary.
            boundary = f"--{_BOUNDARY}\r\n".encode()
            self.wfile.write(boundary)
            number = 0
            while (newest := feed.wait(number)) is not None:
                number, frame = newest
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n"
                self.wfile.write(head.encode() + frame + b"\r\n" + boundary)
        finally:
            feed.leave()

    def log_message(self, *_: object) -> None:
        """Requests are not logged."""


class LivePage:
    """The page, served by a thread while the `with` block runs.

    Attributes:
      url: of the page.
    """

    def __init__(self, port: int, title: str) -> None:
        """Begins to listen.

        Args:
          port: of 127.0.0.1; 0 for any that is free.
          title: of what is shown; plain text.

        Raises:
          UserError: if the port cannot be had.
        """
        self._feed = FrameFeed()
        try:
            self._server = _Server(port, self._feed, html.escape(title))
        except OSError as error:
            raise UserError(
                f"--port={port}: cannot be used ({one_line(error)}); 0 takes any free port"
            ) from None
        self.url = f"http://{ADDRESS}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=[0.1], name="live page", daemon=True
        )

    def show(self, frame: Image.Image) -> bool:
        """Shows a frame to everybody who looks; always True, for a page cannot be closed."""
        buffer = io.BytesIO()
        frame.save(buffer, "JPEG", quality=_JPEG_QUALITY)
        self._feed.publish(buffer.getvalue())
        return True

    def __enter__(self) -> LivePage:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._feed.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
