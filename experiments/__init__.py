"""Experiments: each answers one question, from one command, with a table, figures and files in `results/`."""

import os

# XLA takes every program that it loads from the compilation cache of a CPU for one of a foreign machine, and prints
# two kilobytes about it. It reads this once, when jax is imported. Its errors become exceptions all the same.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
