"""A server of this machine that answers as good and bad servers do."""

import contextlib
import http.server
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
        if way == "moved":
            self.send_response(302)
            self.send_header("Location", "/good/file")
            return self.end_headers()
        self.send_response(200)
        if way != "endless":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # The client has gone.
            self.send_body(way, body)
        return None

    def send_body(self, way, body):
        if way == "truncated":
            self.wfile.write(body[: len(body) // 2])
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
            for start in range(len(body)):
                self.wfile.write(body[start : start + 1])
                self.wfile.flush()
                if self.server.stopped.wait(0.05):
                    break
        else:
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serve(body):
    """Gives the server; `server.address` is where it is."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.body, server.log = body, []
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
