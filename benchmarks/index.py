"""The live index: searches, upserts, freshness and memory, beside faiss alone and a bare matrix product in one run.

    python -m benchmarks.index            # all of it, some ten minutes
    python -m benchmarks.index --quick    # without the rows of a million items
    python -m benchmarks.index --json     # ends with one line for scripts
    python -m benchmarks.index --device cuda --only exact

Vectors are clustered and of unit length, k is 100, one thread. The clusters overlap so far that faiss's IVF, too, must
read some fifty lists of a million items to find 98 % of what is truly best. The bare matrix product scores every item
and finds none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import faiss
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import normalize

from index.compactor import Compactor
from index.exact import ExactIndex
from index.policy import Policy
from index.scan import GROUP, group_maxima
from index.segmented import SegmentedIndex

K = 100
BATCHES = (1, 64)
UPSERT = 64
RECALL, MARGIN = 0.98, 0.01
"""Wanted, and how much more of practice queries, so that others come to it too."""
ITEMS_OF_A_CENTRE = 250
SPREAD = 0.9
"""Of a cluster, in sizes of its centre."""

EXACT_SIZES = ((10_000, 64), (100_000, 64), (100_000, 384), (1_000_000, 64))
LARGE = 1_000_000
IN_DELTA, COMPACTED = "5 % in the slot table", "after the next compaction"
TOPICS = ("exact", "ivf", "upserts", "freshness", "drift")

Row = dict[str, Any]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda; faiss always runs on the CPU")
    parser.add_argument("--only", nargs="+", choices=TOPICS, default=list(TOPICS))
    parser.add_argument("--quick", action="store_true", help="without the rows of a million items")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    rig = Rig(
        arguments.device, seconds=0.5 if arguments.quick else 1.5, largest=LARGE - 1 if arguments.quick else LARGE
    )
    rows: list[Row] = []
    for topic in arguments.only:
        measured = getattr(rig, topic)()
        show(topic, measured)
        rows += [{"topic": topic, **row} for row in measured]
    bars = judged(rows)
    show("bars", [{"bar": name, **bar} for name, bar in bars.items()])
    if arguments.json:
        print(json.dumps({"bars": bars, "rows": rows}))


@dataclass(frozen=True)
class Rig:
    """Where to measure, how long each figure takes, and the largest number of items."""

    device: str
    seconds: float
    largest: int

    def exact(self) -> list[Row]:
        """Queries per second of the slot table, of faiss FlatIP and of the product alone."""
        return [self.exact_at(*size) for size in EXACT_SIZES if size[0] <= self.largest]

    def exact_at(self, items: int, dimension: int) -> Row:
        vectors, queries = clustered(items, dimension)
        index = ExactIndex(dimension, capacity=items, device=self.device)
        index.upsert(torch.arange(1, items + 1), vectors, torch.zeros(items))
        flat = faiss.IndexFlatIP(dimension)
        flat.add(vectors.numpy())
        asked, table, on_host = queries.to(self.device), vectors.to(self.device), queries.numpy()
        row: Row = {"items": items, "dimension": dimension, "device": self.device}
        for batch in BATCHES:
            row |= self.rates(
                batch,
                product=partial(lambda size: asked[:size] @ table.T, batch),
                faiss=partial(lambda size: flat.search(on_host[:size], K), batch),
                exact=partial(lambda size: index.search(asked[:size], K), batch),
            )
        truth = torch.from_numpy(flat.search(on_host[:64], K)[1]) + 1
        if self.device != "cpu":
            row |= self.rates(256, exact=lambda: index.search(asked[:256], K))
            row |= self.bandwidth(table.half(), asked[:256].half())
        return {**row, "recall": recall(index.search(asked[:64], K).ids.cpu(), truth), "mib": index.nbytes >> 20}

    def bandwidth(self, table: Tensor, asked: Tensor) -> Row:
        """GB/s at which the pass over the vectors reads them for 256 queries, and at which a sum reads much memory."""
        table = table[: len(table) - len(table) % GROUP].contiguous()
        bias, much = torch.zeros(len(table), device=self.device), torch.ones(1 << 28, device=self.device)
        scan = table.nbytes / seconds_on_gpu(lambda: group_maxima(asked, table, bias)) / 1e9
        total = much.nbytes / seconds_on_gpu(much.sum) / 1e9
        return {"pass_gb_s": round(scan), "memory_gb_s": round(total), "of_limit": round(total / scan, 2)}

    def ivf(self) -> list[Row]:
        """Queries per second of the segmented index and of faiss's IVF alone, at one recall.

        A tenth of the items is deleted and a twentieth written anew after the lists were learnt: once with these still
        in the slot table, which compactions do not leave there, and once as they stand after the next compaction.
        faiss alone is built from what is there in the end, and reads as few lists as find the same share.
        """
        return [row for items in (100_000, LARGE) if items <= self.largest for row in self.ivf_at(items)]

    def ivf_at(self, items: int) -> Iterator[Row]:
        vectors, queries = clustered(items, 64)
        asked, practice = queries[:256], queries[256:]
        index = SegmentedIndex(64, policy=Policy(kind="ivf", recall=RECALL + MARGIN), capacity=items)
        ids = torch.arange(1, items + 1)
        index.upsert(ids, vectors, torch.zeros(items))
        index.search(practice, K)
        index.compact()
        first = index.report()
        shuffled = ids[torch.randperm(items, generator=torch.Generator().manual_seed(3))]
        gone, written = shuffled[: items // 10], shuffled[items // 10 : items // 10 + items // 20]
        index.remove(gone)
        vectors[written - 1] = normalize(vectors[written - 1] + 0.05 * torch.randn(len(written), 64), dim=1)
        for part in written.split(UPSERT):
            index.upsert(part, vectors[part - 1], torch.zeros(len(part)))
        there = torch.ones(items, dtype=torch.bool)
        there[gone - 1] = False
        truth = best(asked, vectors, there)
        alone, place = faiss_alone(vectors[there]), ids[there]

        def search_alone(part: Tensor, probes: int) -> Tensor:
            _, found = alone.search(part.numpy(), K, params=faiss.SearchParametersIVF(nprobe=probes))
            return place[torch.from_numpy(found)]

        def recall_alone(probes: int) -> float:
            return recall(search_alone(asked, probes), truth)

        def search(part: Tensor) -> None:
            index.search(part, K)

        for state in (IN_DELTA, COMPACTED):
            if state == COMPACTED:
                index.compact()
            report, found = index.report(), recall(index.search(asked, K).ids, truth)
            probes = bisect_left(range(1, alone.nlist), found, key=recall_alone) + 1
            row: Row = {"items": items, "state": state, "delta": report.delta}
            for batch in BATCHES:
                turns = asked.split(batch)
                same = in_turn(partial(search_alone, probes=probes), turns)
                rates = self.rates(batch, faiss_ivf=same, segmented=in_turn(search, turns))
                row |= {**rates, f"ratio_{batch}": round(rates[f"segmented_{batch}"] / rates[f"faiss_ivf_{batch}"], 3)}
            yield row | {
                "recall_faiss": recall_alone(probes),
                "recall": found,
                "probes_faiss": probes,
                "probes": report.probes,
                "first_build_s": first.build_seconds,
                "build_s": report.build_seconds,
                "pause_ms": report.longest_pause_ms,
                "mib": report.nbytes >> 20,
            }

    def upserts(self) -> list[Row]:
        """Upserts per second, 64 at a time."""
        rows = []
        vectors, _ = clustered(100_000, 64)
        ids = torch.arange(1, 100_001)
        exact = ExactIndex(64, capacity=100_000, device=self.device)
        exact.upsert(ids, vectors, torch.zeros(len(ids)))
        indexes: dict[str, ExactIndex | SegmentedIndex] = {"slot table": exact}
        if self.device == "cpu":
            segmented = SegmentedIndex(64, policy=Policy(kind="ivf"))
            segmented.upsert(ids, vectors, torch.zeros(len(ids)))
            segmented.compact()
            indexes["slot table before an IVF segment"] = segmented
        changed = torch.randint(1, 100_001, (512, UPSERT), generator=torch.Generator().manual_seed(1))
        values, bias = vectors[:UPSERT], torch.zeros(UPSERT)
        for name, index in indexes.items():
            change = in_turn(partial(lambda index, some: index.upsert(some, values, bias), index), changed.unbind())
            spans = list(timed(change, self.device, self.seconds))
            p99 = round(1000 * sorted(spans)[int(len(spans) * 0.99)], 3)
            rows.append({"index": name, "upserts/s": round(UPSERT / statistics.mean(spans)), "p99_ms": p99})
        return rows

    def freshness(self) -> list[Row]:
        """Milliseconds from calling upsert to the end of the first search that finds it, beside a busy reader."""
        return [self.freshness_at(rate) for rate in (2_000, 20_000)]

    def freshness_at(self, rate: int) -> Row:
        vectors, queries = clustered(100_000, 64)
        index = SegmentedIndex(64, policy=Policy(kind="ivf", recall=RECALL + MARGIN))
        index.upsert(torch.arange(1, 100_001), vectors, torch.zeros(100_000))
        index.compact()
        compactor, stop = Compactor(lambda: [index]), threading.Event()
        searches = [0]

        def read() -> None:
            search = in_turn(lambda part: index.search(part, K), queries.split(16))
            while not stop.is_set():
                search()
                searches[0] += 16

        reader = threading.Thread(target=read)
        reader.start()
        waits = list(self.written(index, vectors, rate))
        stop.set()
        reader.join()
        compactor.close()
        report = index.report()
        return {
            "upserts/s": rate,
            "p50_ms": round(1000 * statistics.median(waits), 2),
            "p99_ms": round(1000 * sorted(waits)[int(len(waits) * 0.99)], 2),
            "seen": len(waits),
            "reader_queries/s": round(searches[0] / (8 * self.seconds)),
            "compactions": report.compactions - 1,
            "delta_at_the_end": report.delta,
            "pause_ms": report.longest_pause_ms,
        }

    def written(self, index: SegmentedIndex, vectors: Tensor, rate: int) -> Iterator[float]:
        """Seconds until each of some upserts is found, while so many come in each second."""
        generator = torch.Generator().manual_seed(2)
        began, batches = time.perf_counter(), 0
        while time.perf_counter() - began < 8 * self.seconds:
            ids = torch.randint(1, 100_001, (UPSERT,), generator=generator)
            told = torch.cat([ids, torch.tensor([200_000 + batches])])
            marked = normalize(torch.randn(1, 64, generator=generator), dim=1)
            called = time.perf_counter()
            index.upsert(told, torch.cat([vectors[ids - 1], marked]), torch.zeros(len(told)))
            while int(index.search(marked, 1).ids[0, 0]) != 200_000 + batches:
                pass
            yield time.perf_counter() - called
            batches += 1
            index.remove(told[-1:])
            time.sleep(max(0.0, began + batches * UPSERT / rate - time.perf_counter()))

    def drift(self) -> list[Row]:
        """Recall after half the items were replaced from new clusters, beside a fresh build."""
        items = 100_000
        old, _ = clustered(items, 64)
        new, queries = clustered(items, 64, seed=7)
        policy = Policy(kind="ivf", recall=RECALL + MARGIN)
        ids, half = torch.arange(1, items + 1), items // 2
        index = SegmentedIndex(64, policy=policy, capacity=items)
        index.upsert(ids, old, torch.zeros(items))
        index.compact()
        for part in ids[:half].split(5000):
            index.upsert(part, new[part - 1], torch.zeros(len(part)))
            if index.due:
                index.compact()
        now = torch.cat([new[:half], old[half:]])
        fresh = SegmentedIndex(64, policy=policy, capacity=items)
        fresh.upsert(ids, now, torch.zeros(items))
        fresh.compact()
        truth = best(queries[:256], now, torch.ones(items, dtype=torch.bool))
        report = index.report()
        return [
            {
                "items": items,
                "recall": recall(index.search(queries[:256], K).ids, truth),
                "recall_fresh": recall(fresh.search(queries[:256], K).ids, truth),
                "compactions": report.compactions,
                "retrained": report.retrained,
                "probes": report.probes,
                "probes_fresh": fresh.report().probes,
            }
        ]

    def rates(self, batch: int, **searches: Callable[[], object]) -> dict[str, float]:
        """Queries per second of each, in turns, so that a slow moment of the machine meets all of them."""
        spans: dict[str, list[float]] = {name: [] for name in searches}
        for _ in range(3):
            for name, search in searches.items():
                spans[name] += timed(search, self.device, self.seconds / 3)
        return {f"{name}_{batch}": round(batch / statistics.median(times), 1) for name, times in spans.items()}


def clustered(items: int, dimension: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit vectors around centres, and 512 queries from the same clusters."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(items // ITEMS_OF_A_CENTRE, dimension, generator=generator)
    at = torch.randint(len(centres), (items + 512,), generator=generator)
    vectors = centres[at].add_(SPREAD * torch.randn(items + 512, dimension, generator=generator))
    vectors = normalize(vectors, dim=1)
    return vectors[:items], vectors[items:]


def best(queries: Tensor, vectors: Tensor, there: Tensor) -> Tensor:
    """Ids of the truly best of what is there."""
    scores = [(part @ vectors.T).masked_fill_(~there, -torch.inf).topk(K).indices for part in queries.split(32)]
    return torch.cat(scores) + 1


def faiss_alone(vectors: Tensor) -> faiss.IndexIVFFlat:
    """faiss's own IVF over these vectors, with as many lists as ours."""
    lists = int(4 * len(vectors) ** 0.5)
    quantizer = faiss.IndexFlatIP(vectors.shape[1])
    index = faiss.IndexIVFFlat(quantizer, vectors.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 6
    index.cp.max_points_per_centroid = 40
    index.train(vectors.numpy())
    index.add(vectors.numpy())
    return index


def recall(found: Tensor, truth: Tensor) -> float:
    """Share of the truth that was found."""
    pairs = zip(found.numpy(), truth.numpy(), strict=True)
    return round(float(np.mean([len(np.intersect1d(ours, theirs)) for ours, theirs in pairs])) / truth.shape[1], 4)


def in_turn(act: Callable[[Tensor], object], parts: Sequence[Tensor]) -> Callable[[], object]:
    """Do it with the next part each time."""
    calls = iter(range(1 << 60))
    return lambda: act(parts[next(calls) % len(parts)])


def timed(act: Callable[[], object], device: str, seconds: float) -> Iterator[float]:
    """Seconds of each call, for as long as `seconds` last and five times at least; the first call is not counted."""
    act()
    calls, end = 0, time.perf_counter() + seconds
    while calls < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        act()
        if device != "cpu":
            torch.cuda.synchronize()
        calls += 1
        yield time.perf_counter() - start


def seconds_on_gpu(act: Callable[[], object]) -> float:
    """Seconds that the GPU itself takes for it, from many calls that are queued."""
    act()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(100):
        act()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000 / 100


def judged(rows: Sequence[Row]) -> dict[str, Row]:
    """What was wanted beside what was measured, of all that was."""

    def of(topic: str, **wanted: object) -> Row | None:
        found = [row for row in rows if row["topic"] == topic and wanted.items() <= row.items()]
        return found[0] if found else None

    bars: dict[str, Row] = {}

    def bar(name: str, value: float, target: float, *, most: bool = False) -> None:
        bars[name] = {"value": value, "target": target, "met": value <= target if most else value >= target}

    if row := of("exact", items=100_000, dimension=64, device="cpu"):
        bar("exact_100k_batch64_over_faiss", round(row["exact_64"] / row["faiss_64"], 2), 1.4)
        bar("exact_100k_recall", row["recall"], 1.0)
    for row in rows:
        if row["topic"] == "exact" and (row["items"], row["dimension"]) == (LARGE, 64) and "of_limit" in row:
            bar("gpu_1m_pass_times_memory_limit", row["of_limit"], 2.5, most=True)
    for state, name in ((IN_DELTA, "in_delta"), (COMPACTED, "compacted")):
        if row := of("ivf", items=LARGE, state=state):
            bar(f"ivf_1m_batch64_over_faiss_{name}", row["ratio_64"], 0.9)
            bar(f"ivf_1m_recall_{name}", row["recall"], RECALL)
            bar(f"ivf_1m_pause_ms_{name}", row["pause_ms"], 20, most=True)
    if row := of("upserts", index="slot table"):
        bar("upserts_per_second", row["upserts/s"], 300_000)
    for rate, target in ((2_000, 15), (20_000, 40)):
        if row := of("freshness", **{"upserts/s": rate}):
            bar(f"freshness_p99_ms_at_{rate}", row["p99_ms"], target, most=True)
            bar(f"pause_ms_at_{rate}", row["pause_ms"], 20, most=True)
    if row := of("drift"):
        bar("drift_recall_lost", round(row["recall_fresh"] - row["recall"], 4), 0.01, most=True)
    return bars


def show(title: str, rows: Sequence[Row]) -> None:
    """The figures for people."""
    lines = Table(title=title)
    for column in rows[0] if rows else ():
        lines.add_column(column, justify="right", overflow="fold")
    for row in rows:
        lines.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    Console(width=200).print(lines)


if __name__ == "__main__":
    main()
