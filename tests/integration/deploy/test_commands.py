"""Every command, health check and entry point that docker-compose.yml and the Dockerfiles name, run for real.

There is no container engine behind these tests: images are checked by running what they run. `make test` runs it with
the installation at hand, `make images-check` in bare environments with exactly each image's extras.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
import redis
import torch
from botocore.exceptions import ClientError

from tests.support.aws import Aws
from tests.support.compose import DOCKERFILES, instructions, last, make_env, services
from tests.support.deployment import READY_S, Deployment
from tests.support.processes import ROOT, TUSSIS, Spawn
from tests.support.s3_events import record, records
from tests.support.servers import s3_client
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.shared.broker_functions import VERSION, load, loaded_version
from tussis.worker.embedded.binaries import postgres_prefix, valkey_server, weed
from tussis.worker.embedded.ports import free_ports
from tussis.worker.embedded.servers import Endpoints

#: Seconds; the tests' machines are busy.
SOON_S = 60.0
PASSWORD = "0123456789abcdef"


@pytest.fixture
def resolved(tmp_path: Path) -> dict[str, Any]:
    """The services of docker-compose.yml."""
    return services(make_env(tmp_path))


def check(words: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a health check as an engine does."""
    kind, *rest = words
    argv = ["/bin/sh", "-c", *rest] if kind == "CMD-SHELL" else rest
    # The parser gives a dollar sign back doubled; an engine takes it for one.
    argv = [word.replace("$$", "$") for word in argv]
    return subprocess.run(argv, env=dict(environment), capture_output=True, text=True, timeout=SOON_S, check=False)


def healthy(words: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether a health check passes."""
    return check(words, environment).returncode == 0


def test_the_broker_s_command_and_health_check(resolved: dict[str, Any], spawn: Spawn, tmp_path: Path) -> None:
    """Given compose's command with another port and folder, when it runs, then password, file and policy are as said.

    The wheel has no valkey-cli: a stand-in answers for it, with the same variable and the same words.
    """
    (port,) = free_ports(1)
    home, tools = tmp_path / "data", tmp_path / "bin"
    home.mkdir()
    tools.mkdir()
    (tools / "valkey-server").symlink_to(valkey_server())
    (tools / "valkey-cli").write_text(
        f"#!{sys.executable}\nimport os, sys, redis\n"
        f"client = redis.Redis(port={port}, password=os.environ['VALKEYCLI_AUTH'])\n"
        "try:\n    print({'ping': client.ping}[sys.argv[1]]() and 'PONG')\n"
        "except redis.RedisError as error:\n    print(error)\n"
    )
    (tools / "valkey-cli").chmod(0o755)
    text = (ROOT / "deploy" / "valkey.conf").read_text()
    configuration = tmp_path / "valkey.conf"
    configuration.write_text(text.replace("port 6379", f"port {port}").replace("dir /data", f"dir {home}"))
    *shell, script = resolved["broker"]["command"]
    script = script.replace("$$", "$").replace("/etc/valkey/valkey.conf", str(configuration))
    script = script.replace("/etc/valkey/users.acl", str(ROOT / "deploy" / "users.acl"))
    passwords = {name: f"{name}-secret" for name in resolved["broker"]["environment"]}
    environment = passwords | {"PATH": f"{tools}:{os.defpath}", "BROKER_PASSWORD": PASSWORD}
    test = resolved["broker"]["healthcheck"]["test"]

    assert not healthy(test, environment)
    server = spawn(*shell[1:], script, program=f"/bin/{shell[0]}", environment=environment)
    wait_until(lambda: healthy(test, environment), SOON_S, "health")
    assert not healthy(test, environment | {"BROKER_PASSWORD": "wrong"})
    with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    with redis.Redis(port=port, password=PASSWORD) as client:
        wanted = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
        assert {name: client.config_get(name)[name] for name in wanted} == wanted
    users = {"producer": "PRODUCER", "worker": "WORKER", "monitor": "MONITOR", "outcomes": "READER"}
    for user, name in (users | {"notifier": "NOTIFIER", "gateway": "GATEWAY"}).items():
        with redis.Redis(port=port, username=user, password=f"{name}_PASSWORD-secret") as client:
            assert client.ping()
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.flushall()
    unreplaced = redis.Redis(port=port, username="worker", password="WORKER_PASSWORD")
    with unreplaced as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    # The server is the process itself, so that a container's stop reaches it.
    server.signal(signal.SIGTERM)
    assert server.wait(SOON_S) == 0


def test_the_database_s_health_check(resolved: dict[str, Any], deployment: Deployment) -> None:
    postgres = deployment.servers.postgres
    environment = {"PATH": f"{postgres_prefix() / 'bin'}:{os.defpath}", "PGPORT": str(postgres.port)}
    test = resolved["database"]["healthcheck"]["test"]
    # It gives the server three seconds for an answer, and engines ask again.
    wait_until(lambda: healthy(test, environment), SOON_S, "health")
    postgres.kill()
    try:
        assert not healthy(test, environment)
    finally:
        postgres.start()


def test_the_store_s_command_and_health_check(resolved: dict[str, Any], spawn: Spawn, tmp_path: Path) -> None:
    names = [f"{part}.port{kind}" for part in ("master", "volume", "filer") for kind in ("", ".grpc")]
    names.append("s3.port.grpc")
    port, *others = free_ports(1 + len(names))
    service = resolved["s3"]
    home = tmp_path / "s3"
    home.mkdir()
    words = [word.replace("=/data", f"={home}").replace("8333", str(port)) for word in service["command"]]
    words += [f"-{name}={number}" for name, number in zip(names, others, strict=True)]
    assert service["entrypoint"][0] == "/usr/bin/weed"
    keys = {"AWS_ACCESS_KEY_ID": "abcdef", "AWS_SECRET_ACCESS_KEY": PASSWORD}
    assert keys.keys() == service["environment"].keys()
    server = spawn(*service["entrypoint"][1:], *words, program=weed(), environment=keys, cwd=home)
    test = [word.replace("8333", str(port)) for word in service["healthcheck"]["test"]]
    wait_until(lambda: healthy(test, {"PATH": os.defpath}), SOON_S, "health")

    endpoint = f"http://127.0.0.1:{port}"
    ours = s3_client(Endpoints("", "", endpoint, "abcdef", PASSWORD, "us-east-1"))
    wait_until(lambda: put(ours) == 200, SOON_S, "an upload into a new bucket")
    assert put(s3_client(Endpoints("", "", endpoint, "abcdef", "wrong", "us-east-1"))) == 403

    # Other containers reach the S3 server, over HTTP and gRPC, and no other server (docs/security.md). It lists, reads,
    # writes and deletes nothing without a signature.
    found = [one.laddr for one in psutil.Process(server.pid).net_connections("inet") if one.status == "LISTEN"]
    assert {address.port for address in found if address.ip != "127.0.0.1"} == {port, others[-1]}
    for method in ("GET", "PUT", "DELETE"):
        assert httpx.request(method, f"{endpoint}/recordings/a.wav").status_code == 403
    assert httpx.get(f"{endpoint}/recordings/").status_code == 403

    # In a container they go with it; here nobody else would remove them from /tmp.
    sockets = [one.laddr for one in psutil.Process(server.pid).net_connections("unix") if one.laddr]
    server.end()
    for path in sockets:
        (home / path).unlink(missing_ok=True)


def put(client: Any) -> int:
    """The status of an upload."""
    try:
        answer = client.put_object(Bucket="recordings", Key="a.wav", Body=b"x")
    except ClientError as error:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
    return int(answer["ResponseMetadata"]["HTTPStatusCode"])


class Image:
    """What stands for an image: the folder with its ``tussis``."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries

    def environment(self, service: dict[str, Any], deployment: Deployment, run: Path) -> dict[str, str]:
        """The service's own variables, with the test's values where the container has others."""
        given: dict[str, str] = dict(service["environment"])
        ours = deployment.environment | {"TUSSIS_MODEL_CACHE_DIR": str(run / "cache"), "TUSSIS_RUN_DIR": str(run)}
        assert given.keys() - ours.keys() <= {"TUSSIS_CONCURRENCY", "TUSSIS_SQS_QUEUE_URL"}
        return {name: ours.get(name, value) for name, value in given.items()} | {
            "PATH": f"{self.binaries}:{os.defpath}",
            "TUSSIS_RUN_DIR": str(run),
            "TUSSIS_MODEL_CACHE_DIR": str(run / "cache"),
        }


@pytest.fixture(scope="session")
def bare_images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """An environment for the producer's and the CPU worker's image, with exactly the extras that their files name."""
    folder = tmp_path_factory.mktemp("images")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("tussis-*.whl")
    installs = [rest for one, rest in instructions(DOCKERFILES[0]) if one == "RUN" and "/dist/tussis-*.whl" in rest]
    extras = {"producer": "", "worker": "[cpu]"}
    assert ["[cpu]" in rest for rest in installs] == [False, False, True]
    images = {}
    for target, extra in extras.items():
        venv.create(folder / target, with_pip=False)
        binaries = folder / target / "bin"
        subprocess.run(
            [*pip, "--python", binaries / "python", "install", "-c", ROOT / "constraints.txt", f"{wheel}{extra}"],
            check=True,
        )
        images[target] = Image(binaries)
    return images


@pytest.fixture(params=["here", pytest.param("bare", marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def images(request: pytest.FixtureRequest) -> Iterator[dict[str, Image]]:
    """The installation at hand for both images, or bare ones."""
    if request.param == "bare":
        yield request.getfixturevalue("bare_images")
    else:
        yield {"producer": Image(TUSSIS.parent), "worker": Image(TUSSIS.parent)}


def test_the_migration_s_command(
    images: dict[str, Image],
    resolved: dict[str, Any],
    deployment: Deployment,
    database_url: str,
    spawn: Spawn,
    tmp_path: Path,
) -> None:
    service = resolved["migrate"]
    deployment.environment["TUSSIS_DATABASE_URL"] = database_url
    environment = images["worker"].environment(service, deployment, tmp_path)
    (program,) = last(DOCKERFILES[0], "worker", "ENTRYPOINT")
    for _ in range(2):
        ended = spawn(
            *service["command"], program=images["worker"].binaries / program, environment=environment, cwd=tmp_path
        )
        assert ended.wait(READY_S) == 0, ended.text
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM analyses").fetchone() == (0,)


def test_the_preparation_makes_the_logins_and_loads_the_functions(
    resolved: dict[str, Any], deployment: Deployment, broker_url: str, spawn: Spawn, tmp_path: Path
) -> None:
    service = resolved["prepare"]
    (script,) = service["command"]
    owner_url = deployment.environment["TUSSIS_DATABASE_URL"]
    secrets = {name: f"{name}-secret" for name in service["environment"] if name.endswith("_PASSWORD")}
    environment = deployment.environment | secrets | {"PATH": f"{TUSSIS.parent}:{os.defpath}"}
    with redis.Redis.from_url(broker_url) as client:
        client.function_flush()
        try:
            for _ in range(2):
                words = [*service["entrypoint"][1:], script.replace("$$", "$")]
                ended = spawn(*words, program=service["entrypoint"][0], environment=environment, cwd=tmp_path)
                assert ended.wait(READY_S) == 0, ended.text
            assert loaded_version(client) == VERSION
            logins = {"worker": "WORKER", "gateway": "GATEWAY", "analyst": "ANALYST", "reader": "READER"}
            for user, name in logins.items():
                with psycopg.connect(owner_url, user=user, password=f"{name}_PASSWORD-secret") as connection:
                    assert connection.execute("SELECT count(uri) FROM current").fetchone() == (0,)
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute("DELETE FROM jobs")
        finally:
            load(client)
            with psycopg.connect(owner_url, autocommit=True) as connection:
                for user in ("worker", "gateway", "analyst", "reader"):
                    connection.execute(f"DROP ROLE IF EXISTS {user}".encode())


def test_the_listener_s_command_and_health_check(
    images: dict[str, Image], resolved: dict[str, Any], deployment: Deployment, spawn: Spawn, aws: Aws, tmp_path: Path
) -> None:
    """Given compose's listener, when S3 reports an upload, then it is enqueued; without an SQS queue it says so."""
    service, image, queue, alive = resolved["listen-sqs"], images["producer"], aws.queue(), tmp_path / "alive"
    environment = image.environment(service, deployment, tmp_path)
    words = [word.replace("/tmp/alive", str(alive)) for word in service["command"]]
    test = [word.replace("/tmp/alive", str(alive)) for word in service["healthcheck"]["test"]]
    (program,) = last(DOCKERFILES[0], "producer", "ENTRYPOINT")
    command = image.binaries / program
    refused = spawn(*words, program=command, environment=environment, cwd=tmp_path)
    assert refused.wait(SOON_S) == 1
    assert "set TUSSIS_SQS_QUEUE_URL" in refused.text
    assert not healthy(test, environment)
    environment["TUSSIS_SQS_QUEUE_URL"] = queue.url
    listener = spawn(*words, program=command, environment=environment, cwd=tmp_path)
    queue.send(records(record("clinic", "a.wav")))
    queue.wait_empty(SOON_S)
    assert deployment.ledger.open_jobs() == 1
    assert healthy(test, environment)

    listener.signal(signal.SIGTERM)

    assert listener.wait(SOON_S) == 0, listener.text


def test_the_cpu_worker_s_command_and_health_check_and_the_tool_s(
    images: dict[str, Image], resolved: dict[str, Any], deployment: Deployment, spawn: Spawn, tmp_path: Path
) -> None:
    """Given compose's worker, when the producer's image enqueues, then it is analysed; and a stop is clean."""
    service = resolved["worker-cpu"]
    image = images["worker"]
    environment = image.environment(service, deployment, tmp_path) | {"TUSSIS_CONCURRENCY": "1"}
    words = [word.replace("9100", "0") for word in service["command"]]
    (program,) = last(DOCKERFILES[0], "worker", "ENTRYPOINT")
    test = service["healthcheck"]["test"]
    assert not healthy(test, environment)
    worker = spawn(*words, program=image.binaries / program, environment=environment, cwd=tmp_path)
    worker.wait_for_event("worker_ready", READY_S)
    wait_until(lambda: healthy(test, environment), SOON_S, "health")

    deployment.bucket.put("a.wav", wav(1.0))
    tool = resolved["producer"]
    tools = images["producer"].environment(tool, deployment, tmp_path)
    (program,) = last(DOCKERFILES[0], "producer", "ENTRYPOINT")
    command = images["producer"].binaries / program
    shown = spawn(*tool["command"], program=command, environment=tools, cwd=tmp_path)
    assert shown.wait(SOON_S) == 0
    sent = spawn("enqueue", deployment.bucket.uri("a.wav"), program=command, environment=tools, cwd=tmp_path)
    assert sent.wait(SOON_S) == 0, sent.text
    deployment.wait_drained(SOON_S)
    assert deployment.store.counts().succeeded == 1

    look = resolved["tussis"]
    there = image.environment(look, deployment, tmp_path)
    status = spawn(*look["command"], program=image.binaries / "tussis", environment=there, cwd=tmp_path)
    assert status.wait(SOON_S) == 0, status.text
    assert any(line.startswith("results 1 ") for line in status.stdout), status.text

    worker.signal(signal.SIGTERM)
    assert worker.wait(SOON_S) == 0
    assert not healthy(test, environment)


def test_the_gpu_worker_s_command_refuses_without_a_gpu_and_serves_in_a_trial(
    resolved: dict[str, Any], deployment: Deployment, spawn: Spawn, tmp_path: Path
) -> None:
    """Given compose's GPU worker on a machine without one, then it says so in one line; on the CPU it gets healthy."""
    service = resolved["worker-gpu"]
    environment = Image(TUSSIS.parent).environment(service, deployment, tmp_path) | {"TUSSIS_CONCURRENCY": "1"}
    words = [word.replace("9100", "0") for word in service["command"]]
    if not torch.cuda.is_available():
        ended = spawn(*words, environment=environment)
        assert ended.wait(READY_S) == 1
        (line,) = [line for line in ended.stderr if not line.startswith("{")]
        assert line.startswith("tussis: onnxruntime ")
        assert "has no CUDAExecutionProvider" in line
    worker = spawn(*words, "--provider", "cpu", environment=environment)
    worker.wait_for_event("worker_ready", READY_S)
    test = service["healthcheck"]["test"]
    wait_until(lambda: healthy(test, environment), SOON_S, "health")
    worker.signal(signal.SIGTERM)
    assert worker.wait(SOON_S) == 0
