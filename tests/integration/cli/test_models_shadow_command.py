"""``tussis models shadow`` and ``tussis models status``, and the shadow model in ``tussis models list``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support.store import a_claim, a_job, a_result, claimed, model_facts
from tussis.producer.cli import root
from tussis.shared.messages import shadow_job
from tussis.shared.store.repository import Store
from tussis.worker.evaluation.measures import proportion

ONE = model_facts()
TWO = model_facts(version="2", sha256="b" * 64)


@pytest.fixture
def run(store: Store, store_url: str, broker_url: str) -> Any:
    """The command line, in a deployment whose active model is cough@1, and whose workers serve cough@2 too."""
    for model in (ONE, TWO):
        store.register_model(model)
    store.activate("cough@1", activated_by="test", force=True)

    def run(*arguments: str) -> Result:
        environment = {"TUSSIS_DATABASE_URL": store_url, "TUSSIS_BROKER_URL": broker_url}
        return CliRunner().invoke(root, ["models", *arguments], env=environment)

    return run


def test_start_replace_and_stop(run: Any, store: Store) -> None:
    started = run("shadow", "cough@2", "--share", "0.1", "--by", "Ada")
    assert started.exit_code == 0, started.output
    assert started.stdout == "cough@2 also analyses 10 % of the new recordings; see `tussis models status`\n"
    found = store.shadow()
    assert found is not None
    assert (found.model, found.share, found.started_by) == ("cough@2", 0.1, "Ada")
    replaced = run("shadow", "cough@2", "--share", "1")
    assert replaced.stdout.splitlines()[1] == "before: cough@2, 10 %"
    rows = {row["model"]: row for row in map(json.loads, run("list", "--json").stdout.splitlines())}
    assert {model: row["shadow_share"] for model, row in rows.items()} == {"cough@1": None, "cough@2": 1.0}
    assert "shadow, 100 %" in run("list").stdout
    assert run("shadow", "--stop").stdout == "stopped cough@2; its waiting jobs are still answered\n"
    assert run("shadow", "--stop").stdout == "There was no shadow model.\n"
    assert store.shadow() is None


def test_what_is_wrong_is_one_line(run: Any, store: Store) -> None:
    for arguments, words in (
        (["cough@1", "--share", "0.1"], "cough@1 is the active model"),
        (["cough@7", "--share", "0.1"], "no worker has served 'cough@7'"),
        (["cough", "--share", "0.1"], "'cough' is not NAME@VERSION"),
        (["cough@2"], "Give either NAME@VERSION and --share, or --stop"),
        (["cough@2", "--stop"], "Give either NAME@VERSION and --share, or --stop"),
        ([], "Give either NAME@VERSION and --share, or --stop"),
        (["cough@2", "--share", "0"], "0.0 is not in the range"),
        (["cough@2", "--share", "nan"], "--share is not a number"),
        (["cough@2", "--share", "1.1"], "1.1 is not in the range"),
        (["cough@2", "--share", "0.1", "--by", " "], "--by takes 1 to 200 printable characters"),
    ):
        done = run("shadow", *arguments)
        assert done.exit_code != 0, arguments
        assert words in done.output, done.output
        assert "Traceback" not in done.output
    assert store.shadow() is None


def test_status(run: Any, store: Store) -> None:
    assert run("status").stdout.startswith("There was no shadow model yet")
    assert run("status", "--json").stdout == "null\n"
    store.start_shadow("cough@2", 1.0, started_by="test")
    empty = run("status")
    assert empty.exit_code == 0
    assert "0 chosen, 0 compared, 0 waiting" in empty.stdout
    assert json.loads(run("status", "--json").stdout)["flip_share"] is None

    for key, probability in (("a.wav", 0.1), ("b.wav", 0.7), ("c.wav", 0.8), ("d.wav", None)):
        job = a_job(key=key)
        claim = claimed(store.claim(a_claim(job, ONE)))
        store.complete(claim, a_result(probability=0.8))
        if probability is not None:
            shadow = shadow_job(job, str(claim.shadow), etag="e1", version_id=None)
            store.complete(claimed(store.claim(a_claim(shadow, TWO))), a_result(probability=probability))

    told = json.loads(run("status", "--json").stdout)
    flips = proportion(1, 3)
    assert (told["shadow"], told["active"], told["recordings"], told["compared"], told["waiting"]) == (
        "cough@2",
        "cough@1",
        4,
        3,
        1,
    )
    assert (told["flips"], told["flips_to_cough"], told["flips_to_no_cough"]) == (1, 0, 1)
    assert (told["flip_share"], told["flip_share_low"], told["flip_share_high"]) == pytest.approx(
        (flips.value, flips.low, flips.high)
    )
    assert (told["mean_shift"], told["max_shift"]) == pytest.approx((0.8 / 3, 0.7))
    assert told["failures"] == {"active": 0, "shadow": 0}
    text = run("status").stdout
    assert "4 chosen, 3 compared, 1 waiting" in text
    assert "1 (33.33 %, interval 6.15 to 79.23 %): 0 to cough, 1 to no cough" in text
    assert "mean 0.2667, p95 0.6400, largest 0.7000" in text
    run("shadow", "--stop")
    assert ", stopped" in run("status").stdout
