"""The command `python -m experiments.library_defaults`."""

from experiments import library_defaults
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(library_defaults)
