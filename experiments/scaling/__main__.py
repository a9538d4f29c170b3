"""The command `python -m experiments.scaling`."""

from experiments import scaling
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(scaling)
