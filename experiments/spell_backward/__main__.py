"""The command `python -m experiments.spell_backward`."""

from experiments import spell_backward
from experiments.harness import runner

if __name__ == "__main__":
    runner.start(spell_backward)
