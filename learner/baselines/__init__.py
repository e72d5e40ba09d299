"""The rivals: recommenders of the literature that `evaluate` runs beside Headstream, on the same events in one pass."""

from learner.baselines.ease import Ease
from learner.baselines.knn import ItemKNN
from learner.baselines.popularity import DecayedPopularity, Popularity
from learner.baselines.sasrec import SasRec
from learner.baselines.trial import Baseline, Trial
from learner.baselines.tuned_knn import RowUnknown, TunedItemKNN

__all__ = [
    "Baseline",
    "DecayedPopularity",
    "Ease",
    "ItemKNN",
    "Popularity",
    "RowUnknown",
    "SasRec",
    "Trial",
    "TunedItemKNN",
]
