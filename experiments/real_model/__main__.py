"""The command `python -m experiments.real_model`."""

from experiments import real_model
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(real_model)
