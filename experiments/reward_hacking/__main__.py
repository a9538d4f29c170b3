"""The command `python -m experiments.reward_hacking`."""

from experiments import reward_hacking
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(reward_hacking)
