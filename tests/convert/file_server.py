"""A server of this machine that answers as good and bad servers do."""

import contextlib
import http.server
import re
import socket
import threading
import time


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends `server.body`, in the way that the first folder says."""

    def do_GET(self):
        self.server.log.append(self.path)
        body, way = self.server.body, self.path.split("/")[1]
        if way == "missing":
            return self.send_error(404)
        if way == "mute":
            self.server.stopped.wait(30)
            return None
        if way in ("moved", "away"):
            self.send_response(302)
            to = "good" if way == "moved" else "ranges"
            self.send_header("Location", f"/{to}/file")
            return self.end_headers()
        first = self.first_byte() if way in RANGES else 0
        self.server.firsts.append(first)
        if first >= len(body) and first:
            return self.send_error(416)
        self.send_response(206 if first else 200)
        if first:
            shift = 7 * (way == "beside")
            self.send_header(
                "Content-Range",
                f"bytes {first - shift}-{len(body) - 1}/{len(body)}",
            )
        if way not in ("endless", "unmeasured"):
            self.send_header("Content-Length", str(len(body) - first))
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.end_headers()
        with contextlib.suppress(OSError):  # The client has gone.
            self.send_body(way, body[first:])
        return None

    def first_byte(self):
        """Where the wanted part of the file begins, as the client says."""
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range", self.server.etag)
        if wanted is None or condition != self.server.etag:
            return 0
        return int(wanted[1])

    def send_body(self, way, body):
        if way in ("truncated", "breaking"):
            self.wfile.write(body[: (len(body) + 1) // 2])
        elif way == "other":
            self.wfile.write(body[:-1] + bytes([body[-1] ^ 1]))
        elif way == "endless":
            while not self.server.stopped.is_set():
                self.wfile.write(body)
        elif way == "stalled":
            self.wfile.write(body[:9])
            self.wfile.flush()
            self.server.stopped.wait(30)
        elif way == "dripping":
            self.send_slowly(body, 1, 0.05)
        elif way == "slow":
            self.send_slowly(body, max(1, len(self.server.body) // 64), 0.01)
        else:
            self.wfile.write(body)

    def send_slowly(self, body, size, pause):
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            self.wfile.flush()
            if self.server.stopped.wait(pause):
                break

    def log_message(self, *args):
        pass


# These send a part of the file when they are asked for it; with `beside`, it
# is another one.
RANGES = ("ranges", "breaking", "beside", "slow")


@contextlib.contextmanager
def serve(body):
    """Gives the server; `server.address` is where it is.

    `server.firsts` collects the first byte of each answer; `server.etag` is
    what it calls the present version of the file, or nothing.
    """
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.body, server.log, server.firsts = body, [], []
    server.etag = '"1"'
    server.stopped = threading.Event()
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(
        target=server.serve_forever, args=(0.01,), daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()


def closed_address():
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@contextlib.contextmanager
def at_most(seconds):
    """Fails if the block takes longer."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < seconds
