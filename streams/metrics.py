"""Metrics: all that our processes tell Prometheus of themselves. Labels come from the configuration and fixed lists.

Each process counts what it does; what it does not do stays without a value there. Whoever counts per record adds up
first, and adds once per batch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    generate_latest,
    start_http_server,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE

from index.policy import Report
from schemas.decoding import CODES
from schemas.errors import ExplainedError
from schemas.settings import Settings
from schemas.signals import SIGNALS
from schemas.topics import Topics

log = logging.getLogger(__name__)

__all__ = ["CONTENT_TYPE", "exposition"]

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

GROUPS = ("model", "control")
SOURCES = ("model", "popular", "control", "similar")
INDEX_KINDS = ("exact", "ivf")
OTHER = "other"

LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)


def _counter(name: str, says: str, *labels: str) -> Counter:
    return Counter(f"headstream_{name}", says, labels, registry=REGISTRY)


def _gauge(name: str, says: str, *labels: str) -> Gauge:
    return Gauge(f"headstream_{name}", says, labels, registry=REGISTRY)


def _histogram(name: str, says: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"headstream_{name}", says, labels, buckets=buckets, registry=REGISTRY)


# Any process
ready = _gauge("ready", "1 once this process does its work.")
batch_records = _histogram("batch_records", "Records of one batch.", SIZES, "topic")
batch_seconds = _histogram("batch_seconds", "Seconds that one batch took.", DURATIONS, "topic")
dead_letters = _counter("dead_letters", "Records that were put aside.", "topic", "code")
lost_records = _counter("lost_records", "Records that retention removed before they were read.", "topic")
database_retries = _counter("database_retries", "Batches worked again because the database failed.")
stalled_seconds = _gauge("stalled_seconds", "For how long records have waited of which none was worked.")
database_up = _gauge("database_up", "0 while this process waits for a database that fails.")
outbox_errors = _counter("outbox_errors", "Faults that the Kafka producer told of.")
lag = _gauge("lag_records", "Records in Kafka that are not worked yet, over all processes of this kind.", "scenario")
erasures = _counter("erasures", "Users that were erased, as far as this process holds anything of them.")
erased_rows = _counter("erased_rows", "What erasures removed.", "place")
model_version = _gauge("model_version", "Version of the model that is served or was published last.", "scenario")
model_step = _gauge("model_step", "Gradient step at which that version was taken.", "scenario")
model_published = _gauge("model_published_timestamp_seconds", "When it was published; 0 before the first.", "scenario")
model_lineage = _gauge("model_lineage", "A number for the run of learning; SERVE's should be LEARN's.", "scenario")

# GATEWAY
part_up = _gauge("part_up", "0 while a part that GATEWAY stands on does not do its work.", "part")

# SERVE
events = _counter("events", "Events that were applied.", "scenario")
duplicates = _counter("duplicates", "Events that had counted before, by their event_id.", "scenario")
recommendations = _counter("recommendations", "Lists that were published.", "scenario", "source")
lists = _counter("lists", "Lists that were published for users.", "scenario", "group")
clicks = _counter("clicks", "Clicks on lists, each item of a list once.", "scenario", "group")
latency = _histogram("latency_seconds", "From a record in Kafka to the list that it caused.", LATENCIES, "scenario")
conflicts = _counter("conflicts", "Batches worked again because a user was changed elsewhere.")
users_cached = _gauge("users_cached", "User states in memory.")
damaged_weights = _counter("damaged_weights", "Records of weights that were not as LEARN wrote them, and not used.")
index_items = _gauge("index_items", "Items that can be recommended.", "scenario")
index_bytes = _gauge("index_bytes", "Memory of the index.", "scenario")
index_kind = _gauge("index_kind", "1 for the kind of index that is in use.", "scenario", "kind")
index_sequence = _gauge("index_sequence", "Position in the vectors topic up to which records are in use.")
index_recall = _gauge("index_recall", "Share of the truly best items that the index finds.", "scenario")
index_pending = _gauge("index_pending_items", "Changed items that the index's lists have not taken up.", "scenario")

# LEARN
examples = _counter("examples", "Examples that were learnt.", "scenario")
steps = _counter("steps", "Gradient steps.")
skipped_steps = _counter("skipped_steps", "Gradient steps left out because the loss was not finite.")
recall = _gauge("recall_at_10", "Prequential recall@10 of recent examples.", "scenario")
publications = _counter("publications", "Publications of vectors and weights.")
replay_rows = _gauge("replay_rows", "Examples that are remembered for replay.", "scenario")
checkpoint_seconds = _histogram("checkpoint_seconds", "Seconds that a checkpoint took.", DURATIONS)
checkpoint_failures = _counter("checkpoint_failures", "Checkpoints that could not be written.")
checkpoint_made = _gauge("checkpoint_timestamp_seconds", "When the newest checkpoint was written; 0 before the first.")
examples_over_share = _gauge(
    "examples_over_share", "Examples since the start that taught nothing because their users had done so many of late."
)
items_left_out = _gauge(
    "items_left_out", "Times that an item was named and got no place: the table is full, or too many have no record."
)
drift_alarms = _counter("drift_alarms", "Alarms of signals.", "scenario", "signal")
learning_paused = _gauge("learning_paused", "1 while a scenario's learning is paused.", "scenario")
serving_restored = _gauge("serving_restored", "1 while an earlier version of a scenario is served.", "scenario")


class PortTaken(ExplainedError):
    """The metrics cannot be offered where the configuration wants them."""

    def __init__(self, key: str, host: str, port: int, reason: str) -> None:
        self.key, self.host, self.port = key, host, port
        super().__init__(
            f"the metrics cannot be offered on {host}:{port}: {reason}; set metrics.host and {key} to an address of "
            "this machine and a port that is free, or the port to 0, which takes a free one"
        )


def begin_serve(settings: Settings) -> None:
    """Let all that SERVE counts be there from the start, at 0: nobody sees a counter rise that begins above it."""
    topics = Topics(settings)
    for name in settings.scenarios:
        for each in (events, duplicates, latency, lag, model_version, model_step, model_published, model_lineage,
                     index_items, index_bytes, index_recall, index_pending):  # fmt: skip
            each.labels(name)
        _fill(recommendations, [name], SOURCES)
        _fill(lists, [name], GROUPS)
        _fill(clicks, [name], GROUPS)
        _fill(index_kind, [name], INDEX_KINDS)
    for place in ("user states", "history", "lists"):
        erased_rows.labels(place)
    _begin_topics([*(topics.events(name) for name in settings.scenarios), topics.requests, topics.erasures])


def begin_learn(settings: Settings) -> None:
    """As `begin_serve`, for LEARN."""
    topics = Topics(settings)
    for name in settings.scenarios:
        for each in (examples, recall, replay_rows, learning_paused, serving_restored, lag, model_version, model_step,
                     model_published, model_lineage):  # fmt: skip
            each.labels(name)
        _fill(drift_alarms, [name], SIGNALS)
    for place in ("replay rows", "probe rows", "checkpoints", "damaged checkpoints", "examples"):
        erased_rows.labels(place)
    _begin_topics([topics.examples(name) for name in settings.scenarios])
    _fill(dead_letters, [topics.items, topics.control], (*CODES, OTHER))


def _begin_topics(names: Iterable[str]) -> None:
    for name in names:
        for each in (batch_records, batch_seconds, lost_records):
            each.labels(name)
        _fill(dead_letters, [name], (*CODES, OTHER))


def _fill(metric: Counter | Gauge, first: Iterable[str], second: Iterable[str]) -> None:
    others = tuple(second)
    for one in first:
        for other in others:
            metric.labels(one, other)


def count_batch(scenario_of: Mapping[str, str], tallies: Mapping[str, Mapping[tuple[int, str], int]]) -> None:
    """Count what a batch came to: for each topic counts by partition and code, as they go into the database.

    Args:
        scenario_of: for each events topic its scenario.
    """
    for topic, counts in tallies.items():
        scenario = scenario_of.get(topic, "")
        for (_, code), count in counts.items():
            if code.startswith("dead:"):
                count_dead_letters(topic, code.removeprefix("dead:"), count)
            elif code in _COUNTED:
                metric, labels = _COUNTED[code]
                metric.labels(scenario, *labels).inc(count)


_COUNTED: Mapping[str, tuple[Counter, tuple[str, ...]]] = {
    "events": (events, ()),
    "duplicates": (duplicates, ()),
    "lists": (lists, ("model",)),
    "clicks": (clicks, ("model",)),
    "control_lists": (lists, ("control",)),
    "control_clicks": (clicks, ("control",)),
}


def count_dead_letters(topic: str, code: str, count: int) -> None:
    dead_letters.labels(topic, code if code in CODES else OTHER).inc(count)


def set_model(scenario: str, lineage: str, version: int, step: int, published_at: float) -> None:
    """Say which model of a scenario is served, or was published last."""
    model_version.labels(scenario).set(version)
    model_step.labels(scenario).set(step)
    model_published.labels(scenario).set(published_at)
    model_lineage.labels(scenario).set(int(lineage.replace("-", "")[:8] or "0", 16))


def set_index(scenario: str, report: Report) -> None:
    """Say how a scenario's index stands."""
    index_items.labels(scenario).set(report.items)
    index_bytes.labels(scenario).set(report.nbytes)
    index_recall.labels(scenario).set(report.recall)
    index_pending.labels(scenario).set(report.delta if report.lists else 0)
    for kind in INDEX_KINDS:
        index_kind.labels(scenario, kind).set(kind == report.kind)


def count_alarm(scenario: str, signal: str) -> None:
    """A signal of a scenario has raised an alarm."""
    drift_alarms.labels(scenario, signal).inc()


def count_erased(removed: Mapping[str, int]) -> None:
    """An erasure has removed so much, by place."""
    for place, count in removed.items():
        erased_rows.labels(place).inc(count)


def exposition() -> bytes:
    """Everything as Prometheus reads it, to be answered with `CONTENT_TYPE`."""
    return generate_latest(REGISTRY)


def offer(settings: Settings, process: str) -> str:
    """Begin the metrics of `serve` or `learn`, and answer Prometheus from a thread, where the settings say.

    Returns:
        The address; /metrics is beneath it, and whatever else is asked for.

    Raises:
        PortTaken: it cannot be listened on.
    """
    {"serve": begin_serve, "learn": begin_learn}[process](settings)
    host, key = settings.metrics.host, f"{process}_port"
    port: int = getattr(settings.metrics, key)
    try:
        server, _ = start_http_server(port, host, registry=REGISTRY)
    except OSError as error:
        raise PortTaken(f"metrics.{key}", host, port, error.strerror or str(error)) from None
    address = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}"
    log.info("metrics are at %s/metrics", address)
    return address
