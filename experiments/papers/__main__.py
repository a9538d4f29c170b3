"""The command `python -m experiments.papers`."""

from experiments import papers
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(papers)
