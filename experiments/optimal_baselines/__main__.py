"""The command `python -m experiments.optimal_baselines`."""

from experiments import optimal_baselines
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(optimal_baselines)
