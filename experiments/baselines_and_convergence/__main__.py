"""The command `python -m experiments.baselines_and_convergence`."""

from experiments import baselines_and_convergence
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(baselines_and_convergence)
