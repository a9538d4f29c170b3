"""The command `python -m experiments.lecture`."""

from experiments import lecture
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(lecture)
