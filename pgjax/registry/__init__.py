"""The registry of estimators: each is declared once, and its name means the same estimator in every program.

Training, the diagnostics and the papers make their estimators with `make(name, parts)`, so that the estimator that is
measured is the estimator that trains. `ENTRIES` holds for each estimator what it needs, the cause of its bias, the
source of its exact moments and its publication; `python -m experiments.estimators` prints the table. Your own
`module:function` can replace a name everywhere.
"""

from pgjax.registry.entry import (
    NEEDS,
    NOT_STATED,
    SETTINGS,
    Entry,
    Oracle,
    Parts,
    Settings,
    States,
    states_of,
)
from pgjax.registry.finding import ENTRIES, find, load, make

__all__ = [
    "ENTRIES",
    "NEEDS",
    "NOT_STATED",
    "SETTINGS",
    "Entry",
    "Oracle",
    "Parts",
    "Settings",
    "States",
    "find",
    "load",
    "make",
    "states_of",
]
