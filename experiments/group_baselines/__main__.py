"""The command `python -m experiments.group_baselines`."""

from experiments import group_baselines
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(group_baselines)
