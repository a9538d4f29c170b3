"""The command `python -m experiments.rates_and_plateaus`."""

from experiments import rates_and_plateaus
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(rates_and_plateaus)
