"""One runnable module per question; `python -m experiments` lists them."""
