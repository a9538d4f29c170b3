"""The command `python -m experiments.wrong_reinforce`."""

from experiments import wrong_reinforce
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(wrong_reinforce)
