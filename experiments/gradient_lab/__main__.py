"""The command `python -m experiments.gradient_lab`."""

from experiments import gradient_lab
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(gradient_lab)
