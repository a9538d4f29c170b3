"""Exact means and variances of gradient estimates, and the baselines that make them least."""
