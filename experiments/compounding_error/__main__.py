"""The command `python -m experiments.compounding_error`."""

from experiments import compounding_error
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(compounding_error)
