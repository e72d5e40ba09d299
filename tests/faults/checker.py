"""The checker: what must always hold (DESIGN §5), seen from outside: in topics, SQL and the newest checkpoint."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from learner.checkpoint import read_checkpoint
from learner.facts import Facts
from schemas.packed import unpack
from schemas.recommendations import decode_recommendation
from schemas.records import Example, decode_example
from streams.users import read_user
from tests.faults.system import System, until
from tests.faults.topic_reader import TopicReader
from tests.faults.workload import SCENARIOS, Workload

SETTLING_SECONDS = 420.0
MOST_MEMORY_BYTES = 2 << 30
SHOWN = 5

Source = tuple[str, int, int]
"""Scenario, partition, offset of a record of an events topic."""


class Sent(NamedTuple):
    """An event as a record of its topic says it."""

    number: int
    user: str
    item: str
    kind: str
    event_id: str | None

    @property
    def identity(self) -> str | None:
        """What makes two records one event; None where each record is an event of its own."""
        return self.event_id and f"{self.user} {self.event_id}"


@dataclass
class Findings:
    """What a check came to: events that did not count, that counted more than once, and whatever else is wrong."""

    events: int = 0
    lost: int = 0
    duplicated: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.duplicated or self.problems)

    def expect(self, what: str, found: int, wanted: int) -> None:
        """Fewer than wanted are lost, more are duplicated."""
        if found != wanted:
            self.lost += max(0, wanted - found)
            self.duplicated += max(0, found - wanted)
            self.problems.append(f"{what}: {found}, wanted {wanted}")

    def require(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(problem)


class Checker:
    """Follows one system's topics, and compares what came of the workload with what was sent."""

    def __init__(self, system: System, workload: Workload) -> None:
        self._system = system
        self._workload = workload
        topics = system.topics
        self._scenario_of = {topics.events(name): name for name in SCENARIOS}
        self._examples_of = {topics.examples(name): name for name in SCENARIOS}
        self._answers = {topics.recommendations(name) for name in SCENARIOS}
        read = [*self._scenario_of, *self._examples_of, *self._answers, topics.dead_letters, topics.requests]
        self._reader = TopicReader(system.broker.address, read)
        self._sent: dict[Source, Sent] = {}
        self._unreadable: set[Source] = set()
        self._removed: dict[Source, Sent | None] = {}
        self._requested: dict[tuple[int, int], dict[str, Any]] = {}
        self._examples: dict[Source, list[Example]] = defaultdict(list)
        self._recommended: dict[str, tuple[Any, ...]] = {}
        self._put_aside: Counter[Source] = Counter()
        self._told_deaths = 0

    def close(self) -> None:
        self._reader.close()

    def read_up_to(self, topic: str, partition: int) -> int:
        """The offset that is read here next."""
        return self._reader.next(topic, partition)

    def removed(self, topic: str, partition: int, begin: int, end: int) -> None:
        """These records of an events topic, all of them read here, were removed before anybody else had read them."""
        for offset in range(begin, end):
            source = self._scenario_of[topic], partition, offset
            self._unreadable.discard(source)
            self._removed[source] = self._sent.pop(source, None)

    # Waiting

    def settle(self) -> None:
        """Wait until everything that was sent has gone all the way, and everybody is up.

        Raises:
            NotWithin: it does not, which is a failure of its own.
        """
        until(self._workload.settled, "the workload has ended", SETTLING_SECONDS)
        self._system.wait_ready()
        until(self._served, "SERVE has committed all events and requests", SETTLING_SECONDS)
        until(self._learnt, "LEARN has made all examples durable", SETTLING_SECONDS)

    def _served(self) -> bool:
        read = {*self._scenario_of, self._system.topics.requests}
        return self._at_ends(self._system.serve_store.positions(), read)

    def _learnt(self) -> bool:
        return self._at_ends(self._system.learn_store.positions(), set(self._examples_of))

    def _at_ends(self, positions: Any, topics: set[str]) -> bool:
        ends = {key: end for key, end in self._reader.ends().items() if key[0] in topics}
        return all((positions[key].next or 0) == end if key in positions else end == 0 for key, end in ends.items())

    # Checking

    def check(self) -> Findings:
        """All of it, after `settle`."""
        self.read()
        findings = Findings(events=len(self._events()))
        self._check_arrivals(findings)
        self._check_tallies(findings)
        self._check_examples(findings)
        self._check_users(findings)
        self._check_learner(findings)
        self._check_answers(findings)
        self._check_dead_letters(findings)
        self._check_processes(findings)
        return findings

    def read(self) -> None:
        """Take in what has come since the last time."""
        for message in self._reader.read():
            topic, partition, offset = str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)
            value = message.value()
            if topic in self._scenario_of:
                source = self._scenario_of[topic], partition, offset
                if (sent := _as_sent(value)) is not None:
                    self._sent[source] = sent
                else:
                    self._unreadable.add(source)
            elif topic in self._examples_of:
                example = decode_example(value or b"")
                self._examples[self._examples_of[topic], example.partition, example.offset].append(example)
            elif topic in self._answers:
                self._note_answer(value or b"")
            elif topic == self._system.topics.requests:
                self._requested[partition, offset] = json.loads(value or b"")
            else:
                headers = {name: text.decode() for name, text in message.headers() or [] if text is not None}
                scenario = self._scenario_of[headers["source.topic"]]
                self._put_aside[scenario, int(headers["source.partition"]), int(headers["source.offset"])] += 1

    def _note_answer(self, value: bytes) -> None:
        answer = decode_recommendation(value)
        trigger = answer.trigger
        said = answer.user_id, trigger.topic, trigger.partition, trigger.offset, answer.request_id
        before = self._recommended.setdefault(answer.recommendation_id, said)
        if before != said:
            self._recommended[answer.recommendation_id] = ("contradictory", before, said)

    def _events(self) -> dict[str, list[Source]]:
        """The records of each event that is to count once."""
        found: dict[str, list[Source]] = defaultdict(list)
        for source, sent in self._sent.items():
            found[sent.identity or f"record {source}"].append(source)
        return found

    def _check_arrivals(self, findings: Findings) -> None:
        removed = {sent.number for sent in self._removed.values() if sent is not None}
        missing = self._workload.acknowledged - {sent.number for sent in self._sent.values()} - removed
        findings.lost += len(missing)
        findings.require(not missing, f"acknowledged, but not in the topic: {sorted(missing)[:SHOWN]}")

    def _check_tallies(self, findings: Findings) -> None:
        tallies, events = self._system.serve_store.tallies(), self._events()
        for name in SCENARIOS:
            topic = self._system.topics.events(name)
            records = sum(source[0] == name for source in self._sent)
            once = sum(sources[0][0] == name for sources in events.values())
            findings.expect(f"{name}: events applied to users, by SQL", tallies[topic, "events"], once)
            findings.expect(f"{name}: repeats passed over, by SQL", tallies[topic, "duplicates"], records - once)
            removed = sum(source[0] == name for source in self._removed)
            findings.expect(f"{name}: removed before they were read, by SQL", tallies[topic, "lost"], removed)

    def _check_examples(self, findings: Findings) -> None:
        """Of each event exactly one record became an example, however often that was published."""
        for identity, sources in self._events().items():
            made = [source for source in sources if source in self._examples]
            findings.expect(f"examples of {identity}", len(made), 1)
        strange = self._examples.keys() - self._sent.keys()
        findings.require(not strange, f"examples of no event: {sorted(strange)[:SHOWN]}")
        for source, copies in self._examples.items():
            contents = {(each.user_id, each.item_id, each.event, each.weight) for each in copies}
            findings.require(len(contents) == 1, f"the copies of example {source} differ: {contents}")

    def _check_users(self, findings: Findings) -> None:
        """Each user's history grew by one event at a time, and ended as the database has it."""
        length = self._system.settings.model.history
        by_user: dict[str, list[list[Example]]] = defaultdict(list)
        for copies in self._examples.values():
            by_user[copies[0].user_id].append(copies)
        stored = self._system.serve_store.load_users(sorted(by_user))
        for user, examples in by_user.items():
            if user not in stored:
                findings.lost += len(examples)
                findings.problems.append(f"{user} has {len(examples)} examples and no row")
                continue
            final = read_user(stored[user].state)
            problem = history_fault(examples, unpack(final.items), length)
            findings.require(problem is None, f"{user}: {problem}")
            used = {name: set(unpack(packed)) for name, packed in final.used.items()}
            disliked = {name: set(unpack(packed)) for name, packed in final.disliked.items()}
            acted = {item for items in (*used.values(), *disliked.values()) for item in items}
            wanted = {copies[0].item_id for copies in examples}
            findings.expect(f"{user}: items acted on", len(acted & wanted), len(wanted))
            findings.require(acted <= wanted, f"{user} has acted on {sorted(acted - wanted)[:SHOWN]} without an event")

    def _check_learner(self, findings: Findings) -> None:
        checkpoints = self._system.learn_store.checkpoints()
        findings.require(bool(checkpoints), "no checkpoint was made")
        if not checkpoints:
            return
        checkpoint = read_checkpoint(Path(checkpoints[0].folder))
        facts = Facts.read(checkpoint.facts, {})
        heads = self._system.learn_store.heads()
        scenarios = list(self._system.settings.scenarios)
        met = checkpoint.tensors["replay/met"].tolist()
        for name in SCENARIOS:
            sources = [source for source in self._examples if source[0] == name]
            learnt = facts.progress[name].examples
            findings.expect(f"{name}: examples learnt, by the newest checkpoint", learnt, len(sources))
            published = heads[name].examples if name in heads else 0
            findings.require(published <= len(sources), f"{name}: {published} examples are said to be learnt")
            findings.require(
                met[scenarios.index(name)] <= len(sources), f"{name}: replay met {met[scenarios.index(name)]} examples"
            )
        # One example is one step here; a loss that is no number makes none, is counted, and nothing of it is replayed.
        total = sum(progress.examples for progress in facts.progress.values())
        findings.expect("gradient steps, with those left out", facts.step + facts.skipped_steps, total)
        findings.expect("examples met by replay", sum(met), facts.step)
        rows = self._system.settings.learn.replay_rows
        filled = checkpoint.tensors["replay/filled"].tolist()
        findings.require(max(filled) <= rows, f"replay holds {filled} rows, {rows} are allowed")

    def _check_answers(self, findings: Findings) -> None:
        by_trigger = {(said[1], said[2], said[3]): said for said in self._recommended.values() if len(said) == 5}
        contradictory = [name for name, said in self._recommended.items() if said[0] == "contradictory"]
        findings.require(not contradictory, f"one id, two recommendations: {contradictory[:SHOWN]}")
        # Several events of one user in one batch are answered once, with the last of them. One batch may come from
        # several partitions, where events have no key: then it is the last of one of these.
        last: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
        for (scenario, partition, offset), copies in self._examples.items():
            of_user = last[scenario, copies[0].user_id]
            of_user[partition] = max(offset, of_user.get(partition, -1))
        unanswered = [
            f"{scenario} {user} {of_user}"
            for (scenario, user), of_user in last.items()
            if not any((self._system.topics.events(scenario), *place) in by_trigger for place in of_user.items())
        ]
        findings.lost += len(unanswered)
        findings.require(not unanswered, f"events without an answer: {unanswered[:SHOWN]}")
        requests = self._system.topics.requests
        silent = [
            body["request_id"]
            for (partition, offset), body in self._requested.items()
            if by_trigger.get((requests, partition, offset), (None,) * 5)[4] != body["request_id"]
        ]
        findings.lost += len(silent)
        findings.require(not silent, f"requests without an answer: {silent[:SHOWN]}")
        asked = self._workload.asked - {body["request_id"] for body in self._requested.values()}
        findings.require(not asked, f"requests acknowledged, but not in the topic: {sorted(asked)[:SHOWN]}")

    def _check_dead_letters(self, findings: Findings) -> None:
        missing = self._unreadable - self._put_aside.keys()
        strange = self._put_aside.keys() - self._unreadable
        findings.lost += len(missing)
        findings.require(not missing, f"unreadable, and not among the dead letters: {sorted(missing)[:SHOWN]}")
        findings.require(not strange, f"dead letters of readable events: {sorted(strange)[:SHOWN]}")

    def _check_processes(self, findings: Findings) -> None:
        new, self._told_deaths = self._system.deaths[self._told_deaths :], len(self._system.deaths)
        for death in new:
            words = death.last_words.strip()
            understood = death.struck or ("Traceback" not in words and death.code in (0, 1, 75) and bool(words))
            findings.require(
                understood, f"{death.name} ended with exit code {death.code} for no clear reason:\n{words}"
            )
        for name, bytes_used in self._system.memory().items():
            findings.require(bytes_used < MOST_MEMORY_BYTES, f"{name} takes {bytes_used / 1e6:.0f} MB")


def _as_sent(value: bytes | None) -> Sent | None:
    try:
        body = json.loads(value or b"")
        number = body["context"]["number"]
    except (ValueError, KeyError, TypeError):
        return None
    return Sent(number, body["user_id"], body["item_id"], body["event"], body.get("event_id"))


def history_fault(examples: list[list[Example]], final: list[str], length: int) -> str | None:
    """What is wrong with a user's examples as one history that grows by each of them; None if nothing is.

    An example that was published more than once may have met the user at different moments; one of them counts.
    """
    likes = [copies for copies in examples if copies[0].weight >= 0]
    after: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, copies in enumerate(likes):
        for history in {tuple(unpack(each.history)) for each in copies}:
            after[history].append(number)
    # A walk from the empty history over every example; where two could come next, the other is tried as well.
    path: list[int] = []
    taken: set[int] = set()
    states: list[tuple[str, ...]] = [()]
    choices = [list(after[()])]
    longest = 0
    while choices:
        if len(path) == len(likes) and list(states[-1]) == final:
            seen = set(states)
            for copies in examples:
                if copies[0].weight < 0 and not any(tuple(unpack(each.history)) in seen for each in copies):
                    return f"the history of a dislike of {copies[0].item_id} never was the user's"
            return None
        if choices[-1]:
            number = choices[-1].pop()
            if number in taken:
                continue
            path.append(number)
            taken.add(number)
            states.append((*states[-1], likes[number][0].item_id)[-length:])
            choices.append(list(after[states[-1]]))
            longest = max(longest, len(path))
        else:
            choices.pop()
            states.pop()
            if path:
                taken.discard(path.pop())
    return f"{longest} of {len(likes)} events make one history; the database ends with {final[-3:]}"
