"""Exact language-model problems: all answers of a small task, and dynamic programs for long answers."""
