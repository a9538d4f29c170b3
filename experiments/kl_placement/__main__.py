"""The command `python -m experiments.kl_placement`."""

from experiments import kl_placement
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(kl_placement)
