"""The command `python -m experiments.pretraining`."""

from experiments import pretraining
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(pretraining)
