"""Scripts to read from top to bottom and to change: a training loop of your own, and a model of your own."""
