"""Experiments: each answers one question, from one command, with a table, figures and files in `results/`."""

import atexit
import gc
import os
import pathlib
import sys

# XLA takes every program that it loads from the compilation cache of a CPU for one of a foreign machine, and prints
# two kilobytes about it. It reads this once, when jax is imported. Its errors become exceptions all the same.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Imports and tracing make hundreds of thousands of objects that stay. The collector would go over them again and again
# while they are made, and once more at the end, when the system takes all memory back anyway.
gc.set_threshold(100_000, 10, 10)
atexit.register(gc.freeze)

# Python is about to look for `-m experiments.NAME`, and would say only that there is no such module.
if sys.argv[:1] == ["-m"] and "-m" in sys.orig_argv:
    _asked = sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1]
    _name = "".join(_asked).removeprefix("experiments.").partition(".")[0]
    _place = pathlib.Path(__file__).parent / _name
    if _asked[0].startswith("experiments.") and not (_place.is_dir() or _place.with_suffix(".py").is_file()):
        from experiments.harness import mistyped

        print(f"python -m experiments.{_name}: error: {mistyped.question(_name, _place.parent)}", file=sys.stderr)
        raise SystemExit(2)
