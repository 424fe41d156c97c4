"""The three servers together: what they hold, whom they let in, and what they say when they cannot start."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import boto3
import psutil
import psycopg
import pytest
import redis
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.servers import s3_client, server_folder
from tests.support.waiting import PATIENCE, wait_until
from tussis.shared.errors import ServerFailed
from tussis.worker.embedded.broker import Broker
from tussis.worker.embedded.folder import Folder
from tussis.worker.embedded.ports import free_ports
from tussis.worker.embedded.servers import Endpoints, Servers

#: What takes a moment, on a loaded machine.
SOON_S = 30.0


@pytest.fixture
def folder() -> Iterator[Path]:
    with server_folder() as folder:
        yield folder / "servers"


def write(endpoints: Endpoints, text: str) -> None:
    """Leave something in each server."""
    with psycopg.connect(endpoints.database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (text text)")
        connection.execute("INSERT INTO kept VALUES (%s)", (text,))
    with redis.Redis.from_url(endpoints.broker_url) as broker:
        broker.rpush("kept", text)
    with closing(s3_client(endpoints)) as client:
        if not client.list_buckets()["Buckets"]:
            client.create_bucket(Bucket="kept")
        client.put_object(Bucket="kept", Key=text, Body=text.encode())


def read(endpoints: Endpoints) -> tuple[list[str], list[str], list[str]]:
    """What is in each server."""
    with psycopg.connect(endpoints.database_url) as connection:
        rows = [row[0] for row in connection.execute("SELECT text FROM kept")]
    with redis.Redis.from_url(endpoints.broker_url, decode_responses=True) as broker:
        entries = broker.lrange("kept", 0, -1)
    with closing(s3_client(endpoints)) as client:
        keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="kept")["Contents"]]
        bodies = [client.get_object(Bucket="kept", Key=key)["Body"].read().decode() for key in keys]
    return rows, list(entries), bodies


def test_data_addresses_and_keys_survive_a_stop(folder: Path) -> None:
    with Servers(folder) as servers:
        first = servers.endpoints
        write(first, "one")

    with Servers(folder) as servers:
        assert servers.endpoints == first
        write(servers.endpoints, "two")
        assert read(servers.endpoints) == (["one", "two"], ["one", "two"], ["one", "two"])


def test_a_killed_server_comes_back_on_its_port_with_its_data(servers: Servers) -> None:
    endpoints = servers.endpoints
    write(endpoints, "before")
    seen = read(endpoints)
    for handle in (servers.postgres, servers.broker, servers.s3):
        former = handle.pid

        handle.kill()
        assert not handle.running
        assert not psutil.pid_exists(former)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", handle.port), timeout=1)

        handle.start()
        assert handle.pid != former
    assert servers.endpoints == endpoints
    assert read(endpoints) == seen


@pytest.mark.parametrize("told", ["no-node", "no-volume", "no-answer"])
def test_the_store_does_not_answer_before_it_finds_its_objects(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    """Names are listed by another part of it, seconds before an object can be read."""
    write(servers.endpoints, "before")
    assert servers.s3.answers()
    page = servers.s3._page

    def not_yet(port: str, path: str) -> str:
        if port != "master.port":
            return page(port, path)
        if told == "no-answer":
            raise ConnectionRefusedError
        text = page(port, path)
        return (
            text.replace('"127.0.0.1:', '"127.0.0.2:') if told == "no-node" else re.sub('"Id":[0-9]+', '"Id":0', text)
        )

    monkeypatch.setattr(servers.s3, "_page", not_yet)
    assert not servers.s3.answers()


def test_a_restart_is_clean(servers: Servers) -> None:
    for handle in (servers.postgres, servers.broker, servers.s3):
        former = handle.pid
        said_before = handle.log.stat().st_size
        handle.stop()
        handle.start()
        handle.wait_healthy(SOON_S)
        assert handle.pid != former
        if handle is servers.postgres:
            said = handle.log.read_bytes()[said_before:].decode()
            assert "database system was shut down at" in said
            assert "database system was interrupted" not in said


def test_a_server_that_dies_by_itself_is_seen_and_started_again(servers: Servers) -> None:
    former = psutil.Process(servers.broker.pid)
    former.kill()
    former.wait(SOON_S)
    wait_until(lambda: not servers.broker.running, SOON_S, "the broker being seen as gone")

    servers.broker.start()

    assert servers.broker.answers()


def test_every_port_is_on_loopback_only(servers: Servers) -> None:
    for handle in (servers.postgres, servers.broker, servers.s3):
        listening = [
            connection.laddr
            for connection in psutil.Process(handle.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert {address.ip for address in listening} == {"127.0.0.1"}
        assert handle.port in {address.port for address in listening}


def test_nobody_gets_in_without_the_password(servers: Servers) -> None:
    endpoints = servers.endpoints

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(endpoints.database_url, password="wrong")
    with psycopg.connect(endpoints.database_url) as connection:
        stored = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'tussis'").fetchone()
    assert stored is not None
    assert stored[0].startswith("SCRAM-SHA-256$")

    with (
        redis.Redis(host="127.0.0.1", port=servers.broker.port) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()

    anonymous = boto3.client(
        "s3",
        endpoint_url=endpoints.s3_endpoint_url,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED),
    )
    wrong = s3_client(replace(endpoints, s3_secret_key="wrong"))
    for client in (anonymous, wrong):
        with closing(client), pytest.raises(ClientError) as refused:
            client.list_buckets()
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_the_broker_keeps_every_write_and_evicts_nothing(servers: Servers) -> None:
    with redis.Redis.from_url(servers.endpoints.broker_url, decode_responses=True) as broker:
        wanted = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "save": ""}
        assert {name: broker.config_get(name)[name] for name in wanted} == wanted


def test_a_bucket_is_not_made_by_an_upload(servers: Servers) -> None:
    with closing(s3_client(servers.endpoints)) as client, pytest.raises(ClientError) as refused:
        client.put_object(Bucket="never-made", Key="key", Body=b"")
    assert refused.value.response["Error"]["Code"] == "NoSuchBucket"


@pytest.mark.parametrize("name", ["with space, comma and ünïcode", "x" * 200])
def test_any_path_will_do(folder: Path, name: str) -> None:
    with Servers(folder / name) as servers:
        write(servers.endpoints, "one")
        assert read(servers.endpoints) == (["one"], ["one"], ["one"])


def test_a_second_owner_is_told_who_the_first_is(servers: Servers) -> None:
    with pytest.raises(ServerFailed) as refused, Servers(servers.folder):
        pass
    assert str(servers.folder) in str(refused.value)
    assert f"process {psutil.Process().pid}:" in str(refused.value)
    servers.postgres.wait_healthy(SOON_S)


def test_a_server_that_cannot_start_says_why_and_the_others_stop(folder: Path) -> None:
    with Servers(folder) as servers:
        configuration = servers.postgres.data / "postgresql.conf"
    configuration.write_text("no such setting = 1\n")
    with pytest.raises(ServerFailed, match=r"postgres did not start: .*contains errors; see .*postgres\.log$"):
        Servers(folder).__enter__()
    assert not [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(process.info["cmdline"] or [])
    ]


def test_a_stale_pid_file_with_a_living_pid_is_no_obstacle(servers: Servers) -> None:
    servers.postgres.kill()
    file = servers.postgres.data / "postmaster.pid"
    lines = file.read_text().splitlines()
    # The number went to another process: PostgreSQL itself may refuse to start.
    file.write_text("\n".join([str(servers.broker.pid), *lines[1:]]) + "\n")

    servers.postgres.start()

    assert servers.postgres.answers()


def test_the_password_of_other_data_is_refused(folder: Path) -> None:
    began = time.monotonic()
    with Servers(folder):
        started_s = time.monotonic() - began
        secrets = json.loads((folder / "credentials.json").read_text())
        words = [word for process in psutil.process_iter(["cmdline"]) for word in process.info["cmdline"] or []]
        assert not [word for word in words for secret in secrets.values() if secret in word]
        assert started_s < 60 * PATIENCE
    (folder / "credentials.json").write_text(json.dumps({**secrets, "postgres_password": "foreign"}))

    with pytest.raises(ServerFailed, match="is not that of the database"), Servers(folder):
        pass


def test_a_taken_port_is_left_to_its_owner(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = Folder(folder)
    broker = Broker(holder)
    broker.start()
    former = broker.port
    broker.stop()

    with socket.create_server(("127.0.0.1", former)):
        broker = Broker(holder)
        broker.start()
        assert broker.port != former
        broker.stop()

        # Taken between the look at it and the server's start.
        answers = iter([(former,), free_ports(1)])
        monkeypatch.setattr("tussis.worker.embedded.server.free_ports", lambda count: next(answers))
        (folder / "broker.ports").unlink()
        broker = Broker(holder)
        broker.start()
        assert broker.port != former
        broker.stop()
    holder.release()
