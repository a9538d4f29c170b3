"""Finite Markov decision processes: values, visitation, gradients, optimal policies, and all trajectories."""
