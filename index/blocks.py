"""The best of many scores, without sorting them."""

from __future__ import annotations

import torch
from torch import Tensor


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each row without sorting it: find the best blocks by their maxima, then look into these only.

    The k best lie in the k blocks with the greatest maxima, for each of these holds one that is at least as good as
    all that lies elsewhere. Column c belongs to block c modulo the number of blocks: maxima of contiguous stretches.

    Args:
        scores: (batch, n).
        k: at most n.

    Returns:
        Scores, best first, and their columns; (batch, k) each.
    """
    batch, n = scores.shape
    depth = int((n / k) ** 0.5)
    blocks = n // max(depth, 1)
    if depth < 3 or blocks <= k:
        values, columns = torch.topk(scores, k)
        return values, columns
    whole = depth * blocks
    maxima = scores[:, :whole].view(batch, depth, blocks).amax(1)  # (batch, blocks)
    best = torch.topk(maxima, k, sorted=False).indices  # (batch, k)
    rows = torch.arange(0, whole, blocks, device=scores.device)  # (depth,)
    columns = (best[:, None, :] + rows[None, :, None]).flatten(1)  # (batch, depth * k)
    rest = torch.arange(whole, n, device=scores.device).expand(batch, -1)
    columns = torch.cat((columns, rest), 1)
    values, order = torch.topk(scores.gather(1, columns), k)
    return values, columns.gather(1, order)
