"""Rights: the table that people grant by is the one that the code knows, and what is missing is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.settings import Settings
from schemas.topics import Topics
from streams.rights import USERS, Right, RightsMissing, rights_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
WHO = {
    "serve": "SERVE",
    "learn": "LEARN",
    "gateway": "GATEWAY",
    "operator": "who gives commands",
    "publisher": "who publishes",
    "consumer": "who consumes",
}


def cell(user: str, operation: str) -> str:
    rights = [right for right in rights_of(user, "") if (right.operation, right.kind) == (operation, "topic")]
    return ", ".join(f"`{right.name}`" for right in rights)


def others(user: str) -> str:
    rights = [right for right in rights_of(user, "PREFIX") if right.kind != "topic"]
    return ", ".join(f"{right.operation} on {right.kind} `{right.name}`" for right in rights)


def test_the_document_grants_what_the_processes_ask_for() -> None:
    operations = ("Read", "Write", "Describe", "DescribeConfigs")
    rows = [[WHO[user], *(cell(user, each) for each in operations), others(user)] for user in USERS]
    lines = [f"|{'|'.join(f' {each} ' if each else ' ' for each in row)}|" for row in rows]
    table = "\n".join([f"| who | {' | '.join(operations)} | besides |", "|---|---|---|---|---|---|", *lines])
    assert table in DOCUMENT.read_text(), f"the table should read\n{table}"


@pytest.mark.parametrize("user", USERS)
def test_every_name_is_that_of_a_topic_and_what_writes_or_reads_it_need_not_be_all(user: str) -> None:
    topics = [topic.name for topic in Topics(Settings()).all()]
    for right in rights_of(user, "headstream."):
        if right.kind == "topic":
            covered = [topic for topic in topics if right.covers(topic)]
            assert covered
            assert right.operation == "Describe" or len(covered) < len(topics)


def test_what_is_missing_is_said_with_whose_and_what_to_do() -> None:
    missing = [Right("Write", "topic", f"t.{number}") for number in range(7)]
    said = str(RightsMissing('user "eve"', missing))
    assert said.startswith('user "eve" may not do what is needed at the Kafka cluster: it lacks Write on topic t.0, ')
    assert "t.4 and 2 more. " in said
    assert "docs/security.md" in said
