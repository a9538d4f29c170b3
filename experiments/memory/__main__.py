"""The command `python -m experiments.memory`."""

from experiments import memory
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(memory)
