"""Preferences: comparisons of answers, in files or by synthetic annotators, and the reward models fitted to them.

    records / annotators ─► Comparisons, Rankings ─► fitting.fit ─► normalise ─► reward_models.stage ─► training

`losses` has the likelihoods of choices, `records` and `layouts` the files, `labelled_texts` turns records into arrays,
and `reward_models` the models, their normalisation and their ensembles.
"""

from pgjax.preferences import annotators, fitting, labelled_texts, layouts, losses, records, reward_models
from pgjax.preferences.annotators import Annotator
from pgjax.preferences.fitting import Comparisons, Rankings, evaluate, fit, fit_ensemble
from pgjax.preferences.preference import Preference, RecordError
from pgjax.preferences.reward_models import RewardModel

__all__ = [
    "Annotator",
    "Comparisons",
    "Preference",
    "Rankings",
    "RecordError",
    "RewardModel",
    "annotators",
    "evaluate",
    "fit",
    "fit_ensemble",
    "fitting",
    "labelled_texts",
    "layouts",
    "losses",
    "records",
    "reward_models",
]
