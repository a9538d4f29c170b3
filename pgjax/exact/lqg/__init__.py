"""Linear dynamics, quadratic rewards and Gaussian noise, in closed form."""
