"""Exact means and variances of gradient estimates, and the baselines of least variance."""
