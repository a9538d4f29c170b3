"""Experiments: each answers one question, from one command, with a table, figures and files in `results/`."""

import atexit
import gc
import os

# XLA takes every program that it loads from the compilation cache of a CPU for one of a foreign machine, and prints
# two kilobytes about it. It reads this once, when jax is imported. Its errors become exceptions all the same.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Imports and tracing make hundreds of thousands of objects that stay. The collector would go over them again and again
# while they are made, and once more at the end, when the system takes all memory back anyway.
gc.set_threshold(100_000, 10, 10)
atexit.register(gc.freeze)
