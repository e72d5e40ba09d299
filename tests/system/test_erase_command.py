"""`headstream erase` as its user sees it while nobody carries erasures out; `test_erasure.py` has the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess

from streams.cli_erase import _progress
from streams.receipts import Receipt
from tests.system.installation import HEADSTREAM, Installation


def test_where_nobody_carries_it_out_it_says_who_is_missing_and_that_the_wish_stands(alone: Installation) -> None:
    said = alone.fails("erase", "u-42", "--timeout", "0.3")
    assert "pending" in said
    assert "SERVE and LEARN not through: not running, or busy for 0.3 s. The wish stands in Kafka" in said
    assert alone.topics.events("shop") in said  # what Kafka holds is known all the same
    done = subprocess.run(
        [*HEADSTREAM, "erase", "u-42", "--timeout", "0.3", "--json"],
        env=alone._environment,
        capture_output=True,
        text=True,
    )
    receipt = json.loads(done.stdout)
    assert (done.returncode, receipt["status"], receipt["removed"], receipt["left"]) == (1, "pending", {}, [])
    assert f"GET /api/erasures/{receipt['erasure_id']}" in done.stderr
    wished = json.loads(alone.command("erase", "u-42", "--no-wait", "--json"))["erasure_id"]
    found = [json.loads(each.value()) for each in alone.records(alone.topics.erasures)]
    assert [each["erasure_id"] for each in found][1:] == [receipt["erasure_id"], wished]


def test_ctrl_c_ends_the_waiting_and_not_the_erasure(alone: Installation) -> None:
    command = subprocess.Popen(
        [*HEADSTREAM, "erase", "u-42", "--timeout", "170"],
        env={**os.environ, **alone._environment, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert command.stdout is not None
    assert command.stdout.readline().rstrip().endswith("waiting for SERVE and LEARN")
    command.send_signal(signal.SIGINT)
    told = command.communicate(timeout=60)[0]
    assert command.returncode == 1
    assert "SERVE and LEARN not through: you waited no longer. The wish stands in Kafka" in told
    assert len(alone.records(alone.topics.erasures)) == 1


def test_without_a_broker_or_a_topic_it_says_so_and_wishes_nothing(alone: Installation) -> None:
    assert "127.0.0.1:9" in alone.fails("erase", "u-42", "--broker", "127.0.0.1:9")
    alone._environment["HEADSTREAM_KAFKA_PREFIX"] = "nothing-here."
    assert "has no topic nothing-here.erasures" in alone.fails("erase", "u-42")
    assert "user_id is empty" in alone.fails("erase", "")


def test_whoever_waits_is_told_for_whom() -> None:
    receipt = Receipt("e-1", "under way", None, "", {"serve": 5.0, "learn": None}, {"checkpoints": 3}, [], [])
    assert _progress(receipt) == "erasure e-1: waiting for LEARN; 3 checkpoints rewritten"
