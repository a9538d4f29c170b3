"""The command `python -m experiments.train`."""

from experiments import train
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(train)
