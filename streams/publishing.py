"""Publishing: what LEARN makes of items and weights goes to Kafka, each publication in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
from confluent_kafka import KafkaException

from learner.publication import Publication
from schemas.failpoints import failpoint
from schemas.records import ItemVector, encode, seal
from schemas.topics import Topics
from streams import metrics
from streams.outbox import Outbox, PublishFailed
from streams.shortlists import Shortlists
from streams.store import Store
from streams.worker import EXIT_TRY_AGAIN, stop_process


class Publisher:
    """Sends publications, and tells the shortlists what was sent. Called on the worker thread only."""

    def __init__(self, outbox: Outbox, topics: Topics, store: Store, shortlists: Shortlists) -> None:
        """Put together; nothing is sent yet.

        Args:
            outbox: a transactional one.
        """
        self._outbox = outbox
        self._topics = topics
        self._store = store
        self._shortlists = shortlists

    def publish(self, publication: Publication) -> None:
        """Vectors, then the weights that belong to them, in one Kafka transaction."""
        with self._transaction():
            self._send(publication.vectors)
            self._outbox.flush()
            through = self._outbox.end_offsets.get((self._topics.vectors, 0), 0)
            names = [weights.scenario for weights in publication.weights]
            heads = [
                msgspec.structs.replace(weights, vectors_through=through, published_with=names)
                for weights in publication.weights
            ]
            for head in heads:
                value = encode(head)
                self._outbox.send(
                    self._topics.weights, head.scenario.encode(), value, partition=0, headers=[seal(value)]
                )
            failpoint("learn.publish")
        metrics.publications.inc()
        self._store.save_heads(heads)

    def put(self, vectors: Sequence[ItemVector]) -> None:
        """Vectors alone; the weights that were published last rank with them."""
        if vectors:
            with self._transaction():
                self._send(vectors)

    def remove(self, item_ids: Sequence[str]) -> None:
        """Let these items be gone."""
        if item_ids:
            with self._transaction():
                for item_id in item_ids:
                    self._outbox.send(self._topics.vectors, item_id.encode(), None, partition=0)

    def _send(self, vectors: Iterable[ItemVector]) -> None:
        told = []
        for vector in vectors:
            self._outbox.send(self._topics.vectors, vector.item_id.encode(), encode(vector), partition=0)
            told.append(vector.row)
        self._shortlists.tell(told)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._outbox.begin()
            yield
            self._outbox.flush()
            self._outbox.commit()
        except (PublishFailed, KafkaException) as error:
            stop_process(EXIT_TRY_AGAIN, f"a publication was refused (is another LEARN running?): {error}")
