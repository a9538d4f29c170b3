"""The command `python -m experiments.overoptimization`."""

from experiments import overoptimization
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(overoptimization)
