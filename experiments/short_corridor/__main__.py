"""The command `python -m experiments.short_corridor`."""

from experiments import short_corridor
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(short_corridor)
