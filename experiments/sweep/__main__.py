"""The command `python -m experiments.sweep`."""

from experiments import sweep
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(sweep)
