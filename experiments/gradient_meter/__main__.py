"""The command `python -m experiments.gradient_meter`."""

from experiments import gradient_meter
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(gradient_meter)
