"""A real S3 store: SeaweedFS, all of it in one process, signatures enforced."""

from __future__ import annotations

import http.client
import json
import os
import re
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tussis.worker.embedded.binaries import weed
from tussis.worker.embedded.folder import Folder
from tussis.worker.embedded.ports import LOOPBACK
from tussis.worker.embedded.process import Command, StopStep
from tussis.worker.embedded.server import EmbeddedServer

REGION = "us-east-1"
#: Each is a port that ``weed mini`` listens on, ``s3.port`` first. The .grpc ones have a socket file in /tmp beside.
PORTS = (
    "s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
    "filer.port", "filer.port.grpc", "admin.port", "admin.port.grpc",
)  # fmt: skip
#: How long one question to its own status pages may take, seconds.
STATUS_TIMEOUT_S = 5.0
#: A volume in what the parts say of themselves.
VOLUME = re.compile(r'"Id":(\d+)[,}]')


class ObjectStore(EmbeddedServer):
    """SeaweedFS on loopback, with one pair of keys."""

    name = "s3"
    port_count = len(PORTS)

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder)
        self._credentials = folder.credentials

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``."""
        return f"http://{LOOPBACK}:{self.port}"

    def prepare(self) -> None:
        home = self._folder.subfolder(self.name)
        # `weed mini` writes its flags there and takes them up again, other ports and paths included.
        (home / "mini.options").unlink(missing_ok=True)

    def command(self, ports: tuple[int, ...]) -> Command:
        home = self._folder.subfolder(self.name)
        self._write_keys(home / "keys.json")
        named = dict(zip(PORTS, ports, strict=True))
        options = {
            # Relative: the path may hold a comma, which `-dir` takes for a separator.
            "dir": ".",
            "ip": LOOPBACK,
            "ip.bind": LOOPBACK,
            **{name: str(port) for name, port in named.items()},
            "s3.config": "keys.json",
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            "webdav": "false",
            "admin.ui": "false",
            # Nobody reads from other volume servers here: no need to announce the stop and wait.
            "volume.preStopSeconds": "0",
            # Usage reports to its makers are on by default.
            "master.telemetry": "false",
            # Each bucket gets volumes of its own, and the disk is divided by this size: small, so that many fit.
            "master.volumeSizeLimitMB": "64",
            "filer.localSocket": "filer.sock",
            "s3.localSocket": "s3.sock",
        }
        return Command(
            name=self.name,
            argv=(str(weed()), "-logtostderr=true", "mini", *(f"-{key}={value}" for key, value in options.items())),
            cwd=home,
            log=self.log,
            # One second as a rule. Stopped while its administration still starts, it waits for that one first (seven
            # seconds were seen). Killed meanwhile it loses nothing: what it has taken is in its files.
            stop=(StopStep("SIGTERM", 8.0),),
            death_signal="SIGTERM",
            remove=tuple(
                Path(f"/tmp/seaweedfs-{name.partition('.')[0]}-grpc-{port}.sock")
                for name, port in named.items()
                if name.endswith(".grpc")
            ),
        )

    def answers(self) -> bool:
        return self._reaches_its_volumes() and self._lists_buckets()

    def _lists_buckets(self) -> bool:
        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=self._credentials.s3_access_key,
            aws_secret_access_key=self._credentials.s3_secret_key,
            aws_session_token=None,
            config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}),
        )
        try:
            client.list_buckets()
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True

    def _reaches_its_volumes(self) -> bool:
        """Whether objects can be read and written, not only their names.

        After a kill the master may become leader some milliseconds after the volume server looked for one, which then
        looks again five seconds later. Until then every read and write of an object is an internal error.
        """
        try:
            held = self._page("volume.port", "/status")
            known = self._page("master.port", "/vol/status")
        except (OSError, http.client.HTTPException):
            return False
        # Not parsed: until it is up, somebody else may answer on a port.
        node = f'"{LOOPBACK}:{self._ports[PORTS.index("volume.port")]}":'
        return node in known and set(VOLUME.findall(held)) <= set(VOLUME.findall(known))

    def _page(self, port: str, path: str) -> str:
        """What one of its parts says of itself, JSON."""
        connection = http.client.HTTPConnection(LOOPBACK, self._ports[PORTS.index(port)], timeout=STATUS_TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode(errors="replace")
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise http.client.HTTPException(f"{path}: {answer.status}")
        return body

    def _write_keys(self, file: Path) -> None:
        identity = {
            "name": "tussis",
            "credentials": [
                {
                    "accessKey": self._credentials.s3_access_key,
                    "secretKey": self._credentials.s3_secret_key,
                }
            ],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        file.unlink(missing_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            json.dump({"identities": [identity]}, stream)
