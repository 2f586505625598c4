"""As much of the Hub as a repository needs, on this machine."""

import contextlib
import hashlib
import http.server
import json
import threading

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MOVED = "89abcdef0123456789abcdef0123456789abcdef"
REVISIONS = ("main", "v1", COMMIT, MOVED)


class Handler(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as one file of a repository needs."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        self.server.log.append(f"{self.command} {self.path}")
        head, status, body = self.server.find(self.path)
        self.send_response(status)
        for name, value in head.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    def __init__(self, directory):
        super().__init__(("127.0.0.1", 0), Handler)
        self.directory = directory
        self.commit = COMMIT
        self.log = []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def find(self, path):
        if path.startswith("/api/models/"):
            return self.list(path.removeprefix("/api/models/"))
        if "/resolve/" not in path:
            return {}, 404, b""
        user, repository, resolve, revision, name = path[1:].split("/", 4)
        if (user, repository) == ("gated", "repo"):
            return {"X-Error-Code": "GatedRepo"}, 403, b""
        if (user, repository, resolve) != ("user", "repo", "resolve"):
            return {"X-Error-Code": "RepoNotFound"}, 404, b""
        if revision not in REVISIONS:
            return {"X-Error-Code": "RevisionNotFound"}, 404, b""
        head = {"X-Repo-Commit": self.commit}
        file = self.directory / name
        if not file.is_file():
            return {**head, "X-Error-Code": "EntryNotFound"}, 404, b""
        body = file.read_bytes()
        head["ETag"] = f'"{hashlib.sha1(body).hexdigest()}"'
        return head, 200, body

    def list(self, path):
        """What the Hub says of a repository, as far as it is used."""
        repository, _, revision = path.partition("/revision/")
        if repository != "user/repo":
            return {"X-Error-Code": "RepoNotFound"}, 404, b""
        if revision not in ("", *REVISIONS):
            return {"X-Error-Code": "RevisionNotFound"}, 404, b""
        files = [
            {"rfilename": path.relative_to(self.directory).as_posix()}
            for path in sorted(self.directory.rglob("*"))
            if path.is_file()
        ]
        content = {"id": repository, "sha": self.commit, "siblings": files}
        head = {"Content-Type": "application/json"}
        return head, 200, json.dumps(content).encode()


@contextlib.contextmanager
def serve(directory):
    """Gives the server of "user/repo", whose files are in a directory."""
    server = Server(directory)
    thread = threading.Thread(
        target=server.serve_forever, args=(0.01,), daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
