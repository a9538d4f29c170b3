"""Finite Markov decision processes: values, visits, gradients, optimal policies, and every trajectory."""
