"""The command `python -m experiments.precision`."""

from experiments import precision
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(precision)
