"""Random linear problems with random policies."""

import numpy as np

from pgjax import exact as lqg

SHAPES = {"one action, three steps": (2, 1, 3), "two actions, two steps": (2, 2, 2)}


def symmetric(draw, size, scale):
    root = draw((size, size)) * scale
    return root @ root.T


def draw_problem(states, actions, horizon, feedback=True, seed=0):
    """A dense random problem with correlated noise everywhere, and a policy for it."""
    draw = np.random.default_rng(seed).standard_normal
    problem = lqg.make_linear_gaussian(
        transition=0.6 * draw((states, states)),
        control=draw((states, actions)),
        state_cost=symmetric(draw, states, 0.6),
        action_cost=symmetric(draw, actions, 0.6),
        initial_mean=draw((states,)),
        initial_covariance=symmetric(draw, states, 0.5),
        noise_covariance=symmetric(draw, states, 0.4),
        discount=0.9,
        horizon=horizon,
    )
    gains = 0.4 * draw((horizon, actions, states)) if feedback else 0.0
    covariance = symmetric(draw, actions, 0.5) + 0.1 * np.eye(actions)
    return problem, lqg.linear_gaussian_policy(problem, draw((horizon, actions)), covariance, gains)
