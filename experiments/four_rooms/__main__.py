"""The command `python -m experiments.four_rooms`."""

from experiments import four_rooms
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(four_rooms)
