"""The command `python -m experiments.step_size`."""

from experiments import step_size
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(step_size)
