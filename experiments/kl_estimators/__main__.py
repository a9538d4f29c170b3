"""The command `python -m experiments.kl_estimators`."""

from experiments import kl_estimators
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(kl_estimators)
