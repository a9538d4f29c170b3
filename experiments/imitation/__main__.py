"""The command `python -m experiments.imitation`."""

from experiments import imitation
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(imitation)
