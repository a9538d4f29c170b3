"""The command `python -m experiments.problems`."""

from experiments import problems
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(problems)
