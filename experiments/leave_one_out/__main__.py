"""The command `python -m experiments.leave_one_out`."""

from experiments import leave_one_out
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(leave_one_out)
