"""A git server over HTTP as GitLab's is to its jobs: who has a token pushes, push options are kept."""

import json
import os
import subprocess
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

HOOK = r"""#!/usr/bin/env python3
import json, os, sys
count = int(os.environ.get("GIT_PUSH_OPTION_COUNT", "0"))
options = [os.environ[f"GIT_PUSH_OPTION_{number}"] for number in range(count)]
refs = [line.split()[2] for line in sys.stdin]
with open("pushes.jsonl", "a", encoding="utf-8") as log:
    log.write(json.dumps({"refs": refs, "options": options}) + "\n")
"""


class GitServer(NamedTuple):
    """One project's bare repository, and where it is served."""

    url: str
    repository: Path

    @property
    def pushes(self) -> list[dict[str, list[str]]]:
        """What has been pushed, oldest first: `refs`, and the push `options` that came with them."""
        log = self.repository / "pushes.jsonl"
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []

    def git(self, *arguments: str) -> str:
        """Ask the repository itself."""
        command = ["git", "-C", str(self.repository), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def make_repository(folder: Path) -> Path:
    """Make a bare repository that takes push options and writes down each push."""
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", folder], check=True)
    for name in ("receive.advertisePushOptions", "http.receivepack"):
        subprocess.run(["git", "-C", folder, "config", name, "true"], check=True)
    hook = folder / "hooks/post-receive"
    hook.write_text(HOOK, encoding="utf-8")
    hook.chmod(0o755)
    return folder


@contextmanager
def serve_git(
    folder: Path, may_push: Callable[[str], bool], may_read: Callable[[str], bool] = lambda _: True
) -> Iterator[GitServer]:
    """Serve a new repository below `folder` through git's own http-backend; anybody reads it unless told otherwise."""
    repository = make_repository(folder / "team/upkeep.git")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            pushing = "git-receive-pack" in self.path
            if not (may_push if pushing else may_read)(self._password()):
                self._answer(HTTPStatus.UNAUTHORIZED, [("WWW-Authenticate", 'Basic realm="git"')], b"")
                return
            address = urlsplit(self.path)
            variables = {
                **os.environ,
                "GIT_PROJECT_ROOT": str(folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": address.path,
                "QUERY_STRING": address.query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "REMOTE_USER": "upkeep" if pushing else "",
            }
            done = subprocess.run(
                ["git", "http-backend"], env=variables, input=self._body(), capture_output=True, check=False
            )
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            headers = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")]
            status = next((int(value.split()[0]) for name, value in headers if name == "Status"), HTTPStatus.OK)
            self._answer(status, [header for header in headers if header[0] != "Status"], body)

        do_POST = do_GET  # noqa: N815  # http.server's own names

        def _password(self) -> str:
            kind, _, value = self.headers.get("Authorization", "").partition(" ")
            return b64decode(value).decode().partition(":")[2] if kind == "Basic" else ""

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for name, value in [*headers, ("Content-Length", str(len(body)))]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield GitServer(f"http://127.0.0.1:{server.server_port}/team/upkeep.git", repository)
    finally:
        server.shutdown()
        server.server_close()
