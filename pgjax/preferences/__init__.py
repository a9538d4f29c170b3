"""Preferences: comparisons of answers in files, losses of the reward models that are fitted to them, and annotators."""

from pgjax.preferences import layouts, records
from pgjax.preferences.preference import Preference, RecordError

__all__ = ["Preference", "RecordError", "layouts", "records"]
