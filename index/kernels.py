"""GPU kernels, in Triton; to be imported where there is a GPU."""

# Triton takes annotations for its own.
# mypy: allow-untyped-decorators

import triton
import triton.language as tl


@triton.jit
def group_maxima(  # type: ignore[no-untyped-def]
    queries,
    rows,
    bias,
    maxima,
    batch,
    n,
    groups,
    DIMENSION: tl.constexpr,
    QUERIES: tl.constexpr,
    ROWS: tl.constexpr,
    NUMBERS: tl.constexpr,
    GROUP: tl.constexpr,
):
    """One program takes `ROWS` rows and goes through all queries, `QUERIES` at a time; see `index.scan`."""
    tile = tl.program_id(0)
    row = tile * ROWS + tl.arange(0, ROWS)
    group = tile * (ROWS // GROUP) + tl.arange(0, ROWS // GROUP)
    number = tl.arange(0, NUMBERS)
    there = row < n
    extra = tl.load(bias + row, mask=there, other=float("-inf"))
    row_at = row[:, None].to(tl.int64) * DIMENSION
    if DIMENSION <= NUMBERS:
        kept = tl.load(rows + row_at + number[None, :], mask=there[:, None] & (number[None, :] < DIMENSION), other=0.0)
    for start in range(0, batch, QUERIES):
        query = start + tl.arange(0, QUERIES)
        asked = query < batch
        query_at = query[:, None].to(tl.int64) * DIMENSION
        scores = tl.zeros((QUERIES, ROWS), dtype=tl.float32)
        for first in tl.static_range(0, DIMENSION, NUMBERS):
            column = first + number
            inside = column[None, :] < DIMENSION
            left = tl.load(queries + query_at + column[None, :], mask=asked[:, None] & inside, other=0.0)
            if DIMENSION <= NUMBERS:
                right = kept
            else:
                right = tl.load(rows + row_at + column[None, :], mask=there[:, None] & inside, other=0.0)
            scores = tl.dot(left, tl.trans(right), scores)
        scores += extra[None, :]
        best = tl.max(tl.reshape(scores, (QUERIES, ROWS // GROUP, GROUP)), axis=2)
        place = maxima + query[:, None].to(tl.int64) * groups + group[None, :]
        tl.store(place, best, mask=asked[:, None] & (group[None, :] < groups))
