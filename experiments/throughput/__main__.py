"""The command `python -m experiments.throughput`."""

from experiments import throughput
from experiments.harness import runner

if __name__ == "__main__":
    # Compilation is measured, so that no program may come from disk.
    runner.start(throughput, cache=False)
