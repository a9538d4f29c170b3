"""The command `python -m experiments.action_dependent_baselines`."""

from experiments import action_dependent_baselines
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(action_dependent_baselines)
