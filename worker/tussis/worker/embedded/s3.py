"""The embedded S3 store: SeaweedFS in one process, with signatures required.

``store_locks.py`` closes its other servers.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tussis.worker.embedded.binaries import weed
from tussis.worker.embedded.folder import Folder
from tussis.worker.embedded.ports import LOOPBACK
from tussis.worker.embedded.process import Command, StopStep
from tussis.worker.embedded.server import EmbeddedServer
from tussis.worker.embedded.store_locks import client_context, lock_up

REGION = "us-east-1"
#: The ports of ``weed mini``, ``s3.port`` first. Each .grpc port also has a socket file in /tmp.
PORTS = (
    "s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
    "filer.port", "filer.port.grpc", "admin.port", "admin.port.grpc",
)  # fmt: skip
#: Seconds that one request to a status page may take.
STATUS_TIMEOUT_S = 5.0
#: A volume on a status page.
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
        # `weed mini` stores its flags in this file and reads them again, also old ports and paths.
        (home / "mini.options").unlink(missing_ok=True)

    def command(self, ports: tuple[int, ...]) -> Command:
        home = self._folder.subfolder(self.name)
        self._write_keys(home / "keys.json")
        named = dict(zip(PORTS, ports, strict=True))
        options = {
            # Relative: the absolute path may contain a comma, which `-dir` reads as a separator.
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
            # There is no other volume server: no need to announce the stop and wait.
            "volume.preStopSeconds": "0",
            # Usage reports to the makers of SeaweedFS are on by default.
            "master.telemetry": "false",
            # Each bucket has its own volumes, and their number is the disk space divided by this size. A small size
            # allows many volumes.
            "master.volumeSizeLimitMB": "64",
            "filer.localSocket": "filer.sock",
            "s3.localSocket": "s3.sock",
        }
        return Command(
            name=self.name,
            argv=(str(weed()), "-logtostderr=true", "mini", *(f"-{key}={value}" for key, value in options.items())),
            cwd=home,
            log=self.log,
            # A stop usually takes one second. During the start of the administration server it first waits for that
            # start (up to seven seconds were seen). A kill loses nothing: accepted objects are in its files.
            stop=(StopStep("SIGTERM", 8.0),),
            death_signal="SIGTERM",
            environment=lock_up(home),
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
        """Whether the contents of objects can be read and written, not only their names.

        After a kill, the master may become leader some milliseconds after the volume server looked for a leader. The
        volume server looks again five seconds later. Until then every read and write of an object is an internal error.
        """
        try:
            held = self._page("volume.port", "/status")
            known = self._page("master.port", "/vol/status")
        except (OSError, http.client.HTTPException):
            return False
        # The pages are not parsed as JSON: before the store is up, another program may answer on a port.
        node = f'"{LOOPBACK}:{self._ports[PORTS.index("volume.port")]}":'
        return node in known and set(VOLUME.findall(held)) <= set(VOLUME.findall(known))

    def _page(self, port: str, path: str) -> str:
        """The status page of one of its servers, as JSON text."""
        number = self._ports[PORTS.index(port)]
        connection = (
            http.client.HTTPSConnection(LOOPBACK, number, timeout=STATUS_TIMEOUT_S, context=self._master_tls())
            if port == "master.port"
            else http.client.HTTPConnection(LOOPBACK, number, timeout=STATUS_TIMEOUT_S)
        )
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode(errors="replace")
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise http.client.HTTPException(f"{path}: {answer.status}")
        return body

    def _master_tls(self) -> ssl.SSLContext:
        return client_context(self._folder.subfolder(self.name))

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
