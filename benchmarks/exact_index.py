"""Exact index: queries and upserts per second, beside faiss FlatIP and a bare matrix product in the same run.

    python -m benchmarks.exact_index            # all sizes
    python -m benchmarks.exact_index --quick    # the smallest, in seconds
    python -m benchmarks.exact_index --json     # one line for scripts

The bare matrix product is the limit: it scores every item and finds none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator

import faiss
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from index.exact import ExactIndex

SIZES = ((10_000, 64), (100_000, 64), (100_000, 384), (1_000_000, 64))
BATCHES = (1, 64)
K = 100
UPSERT = 64
NAMES = ("product", "faiss", "index")
WIDTH = 110


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (faiss always runs on the CPU)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch and faiss")
    parser.add_argument("--seconds", type=float, default=1.5, help="time for each figure")
    parser.add_argument("--quick", action="store_true", help="the smallest size only, a short time each")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    seconds = 0.2 if arguments.quick else arguments.seconds
    sizes = SIZES[:1] if arguments.quick else SIZES
    figures = [measure(items, dimension, arguments.device, seconds) for items, dimension in sizes]
    if arguments.json:
        print(json.dumps({"device": arguments.device, "threads": arguments.threads, "k": K, "sizes": figures}))
    else:
        Console(width=WIDTH).print(table(figures, f"{arguments.device}, {arguments.threads} thread(s), k = {K}"))


def measure(items: int, dimension: int, device: str, seconds: float) -> dict[str, float]:
    """All figures of one size: queries per second by name and batch, upserts per second and their p99 in ms."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(items, dimension, generator=generator)
    queries = torch.randn(max(BATCHES), dimension, generator=generator)
    ids = torch.arange(1, items + 1)
    index = ExactIndex(dimension, capacity=items, device=device)
    index.upsert(ids, vectors, torch.zeros(items))
    flat = faiss.IndexFlatIP(dimension)
    flat.add(vectors.numpy())
    placed, asked = vectors.to(device), queries.to(device)

    searches: dict[str, Callable[[int], object]] = {
        "product": lambda batch: asked[:batch] @ placed.T,
        "faiss": lambda batch: flat.search(queries[:batch].numpy(), K),
        "index": lambda batch: index.search(asked[:batch], K),
    }
    figures: dict[str, float] = {"items": items, "dimension": dimension}
    figures["agreement"] = agreement(index, flat, queries)
    for batch in BATCHES:
        for name, search in searches.items():
            spans = list(timed(search, batch, device, seconds))
            figures[f"{name}_{batch}"] = round(batch / statistics.median(spans), 1)

    changed = torch.randint(1, items + 1, (64, UPSERT), generator=generator)
    values, bias = vectors[:UPSERT].to(device), torch.zeros(UPSERT, device=device)
    changes = list(timed(lambda turn: index.upsert(changed[turn % 64].to(device), values, bias), 0, device, seconds))
    figures["upserts"] = round(UPSERT / statistics.median(changes))
    figures["upsert_p99_ms"] = round(1e3 * sorted(changes)[int(len(changes) * 0.99)], 3)
    return figures


def timed(act: Callable[[int], object], argument: int, device: str, seconds: float) -> Iterator[float]:
    """Seconds of each call, for as long as `seconds` last and five times at least; the first call is not counted."""
    act(argument)
    calls, end = 0, time.perf_counter() + seconds
    while calls < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        act(argument)
        if device != "cpu":
            torch.cuda.synchronize()
        calls += 1
        yield time.perf_counter() - start


def agreement(index: ExactIndex, flat: faiss.IndexFlatIP, queries: Tensor) -> float:
    """Share of the ids that both find."""
    _, expected = flat.search(queries.numpy(), K)
    found = index.search(queries, K).ids.tolist()
    same = (len(set(ours) & {row + 1 for row in theirs}) for ours, theirs in zip(found, expected.tolist(), strict=True))
    return round(sum(same) / (len(queries) * K), 4)


def table(figures: list[dict[str, float]], title: str) -> Table:
    """The figures for people."""
    lines = Table(title=f"Queries per second, batch {BATCHES[0]} / {BATCHES[1]} ({title})")
    for column in (
        "items",
        "dimension",
        "matrix product",
        "faiss FlatIP",
        "ExactIndex",
        "same ids",
        "upserts/s",
        "p99",
    ):
        lines.add_column(column, justify="right", no_wrap=True)
    for size in figures:
        rates = [" / ".join(f"{size[f'{name}_{batch}']:,.0f}" for batch in BATCHES) for name in NAMES]
        changes = (f"{size['agreement']:.2%}", f"{size['upserts']:,.0f}", f"{size['upsert_p99_ms']:.2f} ms")
        lines.add_row(f"{size['items']:,.0f}", f"{size['dimension']:.0f}", *rates, *changes)
    return lines


if __name__ == "__main__":
    main()
