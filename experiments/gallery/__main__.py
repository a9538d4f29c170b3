"""The command `python -m experiments.gallery`."""

from experiments import gallery

if __name__ == "__main__":
    raise SystemExit(gallery.main())
