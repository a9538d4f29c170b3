"""Every estimator, declared once: a name means the same object wherever it is typed.

`make(name, parts)` is where training, the laboratory and the papers get their estimators from, so that what is
measured is what trains. `ENTRIES` says of each what it needs, what it is biased by, where its exact moments come from,
and who published it; `python -m experiments.estimators` prints the table. A user's `module:function` stands wherever a
name does.
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
