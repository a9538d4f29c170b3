"""The command `python -m experiments.baseline_start`."""

from experiments import baseline_start
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(baseline_start)
