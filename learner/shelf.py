"""A scenario's shelf, searched exactly and straight from the item table: what LEARN ranks with between publications."""

from __future__ import annotations

import torch
from torch import Tensor

from learner.items import ItemTable
from learner.ranking import Search


def search_shelf(table: ItemTable, scenario: int) -> Search:
    """A search over what the scenario may recommend, as the table is when it is asked."""

    def search(queries: Tensor, k: int, excluded: Tensor | None, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
        eligible = table.eligible[scenario]
        if allowed is not None:
            among = torch.zeros_like(eligible)
            among[allowed] = True
            eligible = eligible & among
        rows = eligible.nonzero().flatten()  # (n,), ascending
        if len(rows) == 0:
            return rows.expand(len(queries), 0), queries.new_zeros(len(queries), 0)
        scores = torch.addmm(table.bias[scenario].index_select(0, rows), queries, table.vectors.index_select(0, rows).T)
        if excluded is not None:
            place = torch.searchsorted(rows, excluded).clamp_max_(len(rows) - 1)
            # What is not on the shelf bans a column of its own, behind the last.
            place = torch.where(rows[place] == excluded, place, len(rows))
            banned = torch.zeros(len(scores), len(rows) + 1, dtype=torch.bool, device=scores.device)
            scores.masked_fill_(banned.scatter_(1, place, True)[:, :-1], -torch.inf)
        scores, place = scores.topk(min(k, len(rows)), dim=1)
        return rows[place] * scores.isfinite(), scores

    return search
