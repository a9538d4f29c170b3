"""The command `python -m experiments.rlhf`."""

from experiments import rlhf
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(rlhf)
