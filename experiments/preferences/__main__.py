"""The command `python -m experiments.preferences`."""

from experiments import preferences

if __name__ == "__main__":
    preferences.main()
