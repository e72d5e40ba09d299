"""The identity of topics: one that was deleted and made again under its name is another, whatever its offsets say."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from streams.access import librdkafka
from streams.handshake import BrokerUnreachable

TIMEOUT_SECONDS = 10.0
LOOK_SECONDS = 5.0

NONE = "AAAAAAAAAAAAAAAAAAAAAA"
"""What clusters older than Kafka 2.8 say, which give topics no ids (KIP-516)."""


class TopicReplaced(Exception):
    """A topic is not the one that the stored offsets are of."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"topic {topic} was deleted and made anew: the database holds how far its predecessor was worked, and its"
            " offsets begin again. Nothing of it is read. Use a fresh --data folder (or database) for it, or a topic of"
            " another name."
        )


def read_topic_ids(broker: str, topics: Collection[str]) -> dict[str, str]:
    """The id of each topic; those that are not there, or have none, are left out.

    Raises:
        BrokerUnreachable: the broker does not say.
    """
    if not topics:
        return {}
    # A client of its own for each look: one that saw its broker restart may be refused for ever.
    admin = AdminClient({**librdkafka(broker), "log_level": 2})
    answers = admin.describe_topics(TopicCollection(sorted(topics)), request_timeout=TIMEOUT_SECONDS)
    found: dict[str, str] = {}
    for topic, answer in answers.items():
        try:
            named = str(answer.result(TIMEOUT_SECONDS + 1).topic_id)
        except TimeoutError:
            raise BrokerUnreachable(broker, f"it does not describe topic {topic}") from None
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue
            raise BrokerUnreachable(broker, error.args[0].str()) from error
        if named != NONE:
            found[topic] = named
    return found


class IdentityWatch:
    """Tells, some seconds later at most, when a topic that is being read was replaced.

    Args:
        known: asked for the ids under which topics are read.
        replaced: told of the topic, on a thread of this watch; it is the last thing that happens here.
    """

    def __init__(self, broker: str, known: Callable[[], Mapping[str, str]], replaced: Callable[[str], object]) -> None:
        self._broker, self._known, self._replaced = broker, known, replaced

    def start(self) -> None:
        threading.Thread(target=self._run, name="topic-identity", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            if (topic := self.look()) is not None:
                self._replaced(topic)
                return

    def look(self) -> str | None:
        """Look once; returns a topic that was replaced, if there is one and Kafka says so."""
        known = dict(self._known())
        try:
            found = read_topic_ids(self._broker, known)
        except BrokerUnreachable:
            return None  # a broker that is away has replaced nothing yet
        return next((topic for topic, id in found.items() if id != known[topic]), None)
