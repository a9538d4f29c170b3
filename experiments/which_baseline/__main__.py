"""The command `python -m experiments.which_baseline`."""

from experiments import which_baseline
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(which_baseline)
