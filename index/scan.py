"""One pass over a table on a GPU: the greatest score of every few rows, without writing down the scores.

A matrix product would write a score for each query and row and read all of them again, which takes several times as
long as reading the vectors. Here the scores of a tile stay in registers, and only their maxima leave it.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from index.blocks import top_k

GROUP = 32
"""Rows of which one maximum is kept."""

ROWS, NUMBERS = 128, 64
"""Of a tile, so many numbers at a time; its queries and stages are what an H100 liked best."""

CANDIDATES_AT_ONCE = 1 << 24


def scan(queries: Tensor, rows: Tensor, bias: Tensor, k: int, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
    """The k best rows for each query, exactly, but that they are chosen with queries rounded to float16.

    The k best lie in the k groups with the greatest maxima, and so many more as there are hidden ones: each of those
    may be the maximum of a group that holds nothing else.

    Args:
        queries: (batch, dimension), float32.
        rows: (n, dimension), float16, n a multiple of `GROUP`.
        bias: -inf where a row is not to be found; (n,), float32.
        k: at most n.
        hidden: rows that a query must not get; (batch, e), int64.

    Returns:
        Scores, best first, -inf where fewer are left, and rows; (batch, k) each.
    """
    groups = min(len(rows) // GROUP, k + (0 if hidden is None else hidden.shape[1]))
    unwanted = None if hidden is None or hidden.shape[1] == 0 else hidden.sort(dim=1).values
    at_once = max(1, CANDIDATES_AT_ONCE // (groups * GROUP))
    parts = []
    for start in range(0, len(queries), at_once):
        part = slice(start, start + at_once)
        these = None if unwanted is None else unwanted[part]
        parts.append(_scan(queries[part], rows, bias, k, groups, these))
    scores, found = (torch.cat(each) for each in zip(*parts, strict=True))
    return scores, found


def _scan(
    queries: Tensor, rows: Tensor, bias: Tensor, k: int, groups: int, unwanted: Tensor | None
) -> tuple[Tensor, Tensor]:
    rounded, dimension = queries.half(), rows.shape[1]
    _, best = top_k(group_maxima(rounded, rows, bias), groups)  # (batch, groups)
    columns = (best[:, :, None] * GROUP + torch.arange(GROUP, device=rows.device)).flatten(1)
    chosen = best.flatten()
    vectors = rows.view(-1, GROUP * dimension).index_select(0, chosen).view(len(queries), -1, dimension)
    extra = bias.view(-1, GROUP).index_select(0, chosen).view(len(queries), -1)
    scores = _products(vectors, rounded) + extra
    if unwanted is not None:
        place = torch.searchsorted(unwanted, columns).clamp_max_(unwanted.shape[1] - 1)
        scores.masked_fill_(unwanted.gather(1, place) == columns, -torch.inf)
    values, order = torch.topk(scores, k)
    columns = columns.gather(1, order)
    # Few are left now, and these are scored with the queries as they came.
    exact = torch.bmm(rows[columns].float(), queries[:, :, None])[:, :, 0] + bias[columns]
    exact, order = exact.masked_fill_(values == -torch.inf, -torch.inf).sort(dim=1, descending=True, stable=True)
    return exact, columns.gather(1, order)


def _products(vectors: Tensor, queries: Tensor) -> Tensor:
    """Each query with its own vectors, summed in float32; (batch, n, d) and (batch, d) → (batch, n)."""
    if vectors.device.type == "cuda":
        return torch.bmm(vectors, queries[:, :, None], out_dtype=torch.float32)[:, :, 0]
    return torch.bmm(vectors.float(), queries[:, :, None].float())[:, :, 0]


def group_maxima(queries: Tensor, rows: Tensor, bias: Tensor) -> Tensor:
    """The greatest score in each group of rows.

    Args:
        queries: (batch, dimension), float16.
        rows: (n, dimension), float16, n a multiple of `GROUP`.
        bias: (n,), float32.

    Returns:
        (batch, n / GROUP), float32.
    """
    n, dimension = rows.shape
    groups = n // GROUP
    maxima = torch.empty(len(queries), groups, device=rows.device)
    at_once, stages = (64, 3) if dimension <= NUMBERS else (128, 1)
    sizes = {"DIMENSION": dimension, "QUERIES": at_once, "ROWS": ROWS, "NUMBERS": NUMBERS, "GROUP": GROUP}
    tables = (queries.contiguous(), rows, bias, maxima)
    _kernel()[(-(-n // ROWS),)](*tables, len(queries), n, groups, **sizes, num_warps=4, num_stages=stages)
    return maxima


def _kernel() -> Any:
    """Triton's, which is there where torch is made for CUDA, and is needed nowhere else."""
    return importlib.import_module("index.kernels").group_maxima
