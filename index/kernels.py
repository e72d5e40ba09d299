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
    row_at = row[:, None].to(tl.int64) * DIMENSION + number[None, :]
    # A mask that depends on the column would keep loads from being wide: there is none where columns come out even.
    even: tl.constexpr = DIMENSION % NUMBERS == 0
    if DIMENSION <= NUMBERS:
        held = there[:, None] if even else there[:, None] & (number[None, :] < DIMENSION)
        kept = tl.trans(tl.load(rows + row_at, mask=held, other=0.0))
    for start in range(0, batch, QUERIES):
        query = start + tl.arange(0, QUERIES)
        asked = query < batch
        query_at = query[:, None].to(tl.int64) * DIMENSION + number[None, :]
        scores = tl.zeros((QUERIES, ROWS), dtype=tl.float32)
        for first in tl.static_range(0, DIMENSION, NUMBERS):
            inside = first + number[None, :] < DIMENSION
            left_held = asked[:, None] if even else asked[:, None] & inside
            left = tl.load(queries + query_at + first, mask=left_held, other=0.0)
            if DIMENSION <= NUMBERS:
                right = kept
            else:
                right_held = there[:, None] if even else there[:, None] & inside
                right = tl.trans(tl.load(rows + row_at + first, mask=right_held, other=0.0))
            scores = tl.dot(left, right, scores)
        scores += extra[None, :]
        best = tl.max(tl.reshape(scores, (QUERIES, ROWS // GROUP, GROUP)), axis=2)
        place = maxima + query[:, None].to(tl.int64) * groups + group[None, :]
        tl.store(place, best, mask=asked[:, None] & (group[None, :] < groups))
