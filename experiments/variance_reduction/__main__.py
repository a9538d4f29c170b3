"""The command `python -m experiments.variance_reduction`."""

from experiments import variance_reduction
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(variance_reduction)
