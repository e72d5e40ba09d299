"""SASRec: a causal transformer over each user's sequence, trained further every so many events."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from learner.baselines.trial import DEPTH, Flags, Rows, Trial, best, most_used_first, with_room

UNUSED = 0.1
"""Uses that an item has in any scenario, so that none is impossible there."""

UNLEARNT = -1e9
"""The score of an item that was in no fit yet, below that of any other."""


class SasRec:
    """SASRec, trained further on all users' sequences every `refit` uses, from the weights it has (a warm refit).

    The loss is the paper's next-item prediction at every place of a sequence, but with the full softmax over the items
    in use where the paper draws one negative; that ranks better (Klenitskiy and Vasilev 2023,
    https://arxiv.org/abs/2309.07602). To each item's logit is added the logarithm of its uses in the scenario asked
    for: the model is told how popular an item is, and for which shelf, and learns only what the sequence says beyond
    that. Optimizer moments start anew with each refit.

    Items in no fit yet come last; they, and all items for a user without a history, go by number of uses, then by the
    lower row. Kang and McAuley 2018, Self-attentive sequential recommendation, https://arxiv.org/abs/1808.09781.
    """

    def __init__(
        self,
        rows: int,
        *,
        seed: int = 0,
        refit: int = 5000,
        epochs: int = 5,
        length: int = 50,
        dimension: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.2,
        learning_rate: float = 1e-3,
        batch: int = 64,
        depth: int = DEPTH,
    ) -> None:
        """Make an untrained model.

        Args:
            refit: uses after which it is trained further.
            epochs: passes over all sequences in a refit.
            length: items of a sequence that are read at once; rankings read as many of the trial's history.
            learning_rate: of Adam.
            batch: sequences per step.
        """
        self._uses = np.zeros(rows, np.int64)
        self._learnt: Flags = np.zeros(rows, np.bool_)
        self._scenario_uses: defaultdict[int, Rows] = defaultdict(lambda: np.zeros(len(self._uses), np.int64))
        self._sequences: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)  # item rows and scenarios
        self._unfit = 0
        self._fits = 0
        self._seed = seed
        self._refit = refit
        self._epochs = epochs
        self._length = length
        self._learning_rate = learning_rate
        self._batch = batch
        self._depth = depth
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._model = _Transformer(rows, length, dimension, blocks, heads, dropout).eval()

    @torch.inference_mode()
    def rank(self, trial: Trial, shelf: Flags) -> Rows:
        rows = most_used_first(shelf, self._uses)
        # The pad in front is there to be read where nobody has a history.
        history = torch.from_numpy(np.pad(trial.history, ((0, 0), (1, 0)))[:, -self._length :])
        newest = self._model(history)[:, -1]  # (batch, dimension)
        logits = newest @ self._model.items[torch.from_numpy(rows)].T  # (batch, n)
        told = trial.history.any(1, keepdims=True)  # (batch, 1)
        scores = np.where(told & self._learnt[rows], logits.numpy() + self._prior(trial.scenario)[rows], UNLEARNT)
        return best(scores, rows, trial.excluded, self._depth)

    def learn(self, trial: Trial) -> None:
        uses = trial.uses()
        np.add.at(self._uses, uses.target, 1)
        np.add.at(self._scenario_uses[uses.scenario], uses.target, 1)
        for user, target in zip(uses.users.tolist(), uses.target.tolist(), strict=True):
            self._sequences[user].append((target, uses.scenario))
        self._unfit += len(uses.target)
        if self._unfit >= self._refit:
            self._unfit = 0
            self._fits += 1
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._seed + self._fits)
                self._fit()

    def grow(self, rows: int) -> None:
        before = len(self._uses)
        self._uses = with_room(self._uses, rows)
        self._learnt = with_room(self._learnt, rows)
        for scenario, table in self._scenario_uses.items():
            self._scenario_uses[scenario] = with_room(table, rows)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed + before)
            self._model.grow(len(self._uses))

    def _fit(self) -> None:
        self._learnt = self._uses > 0
        known = torch.from_numpy(np.flatnonzero(self._learnt))
        place = torch.zeros(len(self._uses), dtype=torch.int64)
        place[known] = torch.arange(len(known))
        scenarios = max(self._scenario_uses) + 1
        prior = torch.from_numpy(np.stack([self._prior(scenario) for scenario in range(scenarios)]))[:, known]
        windows = self._windows()
        optimizer = torch.optim.Adam(self._model.parameters(), self._learning_rate, betas=(0.9, 0.98))
        self._model.train()
        for _ in range(self._epochs):
            shuffled = windows[torch.randperm(len(windows))]
            for start in range(0, len(windows), self._batch):
                chosen = shuffled[start : start + self._batch]
                read = chosen[:, :-1, 0]
                following, scenario = chosen[:, 1:][read > 0].unbind(1)  # (places,) each
                states = self._model(read)[read > 0]  # (places, dimension)
                logits = states @ self._model.items[known].T + prior[scenario]  # (places, items in use)
                loss = functional.cross_entropy(logits, place[following])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
        self._model.eval()

    def _windows(self) -> Tensor:
        """All sequences, cut so that each item but a user's first is predicted once; 0 pads on the left.

        Returns:
            Item rows and scenarios; (windows, length + 1, 2), int64.
        """
        cuts = [
            sequence[max(0, end - self._length - 1) : end]
            for sequence in self._sequences.values()
            for end in range(len(sequence), 1, -self._length)
        ]
        windows = torch.zeros(len(cuts), self._length + 1, 2, dtype=torch.int64)
        for window, cut in zip(windows, cuts, strict=True):
            window[-len(cut) :] = torch.tensor(cut)
        return windows

    def _prior(self, scenario: int) -> NDArray[np.float32]:
        """Logarithm of the uses of each item in a scenario; (rows,)."""
        logarithms: NDArray[np.float32] = np.log(self._scenario_uses[scenario] + UNUSED, dtype=np.float32)
        return logarithms


class _Transformer(nn.Module):
    """Reads sequences; the state at a place is close to the items that may follow it."""

    def __init__(self, rows: int, length: int, d: int, blocks: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.items = nn.Parameter(torch.randn(rows, d) * 0.02)
        self.places = nn.Parameter(torch.randn(length, d) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(d, heads, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(d)

    def grow(self, rows: int) -> None:
        """Make room for `rows` items."""
        before, d = self.items.shape
        self.items = nn.Parameter(torch.cat((self.items.detach(), torch.randn(rows - before, d) * 0.02)))

    def forward(self, history: Tensor) -> Tensor:
        """Read sequences.

        Args:
            history: rows, oldest first, 0 pads on the left; (batch, length), int64.

        Returns:
            (batch, length, d).
        """
        length = history.shape[1]
        present = history > 0
        x = self.dropout(
            functional.embedding(history, self.items) + self.places[-length:]
        )  # places count from the newest
        earlier = torch.ones(length, length, dtype=torch.bool).tril()
        # A pad sees itself, so that it has something to attend to; nobody else sees it.
        visible = (earlier & present[:, None, :]) | torch.eye(length, dtype=torch.bool)  # (batch, length, length)
        for block in self.blocks:
            x = block(x, visible[:, None])
        states: Tensor = self.norm(x)
        return states


class _Block(nn.Module):
    """Self-attention and a two-layer network at each place, both as x + dropout(f(norm(x))), after the paper's (5)."""

    def __init__(self, d: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(d)
        self.norm_inner = nn.LayerNorm(d)
        self.look = nn.Linear(d, 3 * d)
        self.attended = nn.Linear(d, d)
        self.inner = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """x: (batch, length, d); visible: who sees whom, (batch, 1, length, length), bool."""
        batch, length, d = x.shape
        looks = self.look(self.norm_attention(x)).view(batch, length, 3, self.heads, d // self.heads)
        query, key, value = looks.permute(2, 0, 3, 1, 4)  # each (batch, heads, length, d / heads)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        x = x + self.dropout(self.attended(seen.transpose(1, 2).reshape(batch, length, d)))
        added: Tensor = self.dropout(self.inner(self.norm_inner(x)))
        return x + added
