"""Parameter-exploring policy gradients: a problem whose action is θ itself and whose reward is a whole return.

    ρ(m, s) = E_{θ ~ N(m, s²)} E[Σ_t γᵗ R_{t+1}],    ∇ρ = E[G ∇ ln N(θ; m, s²)]

Every estimator and baseline can solve it: REINFORCE on `parameter_exploring` with `gaussian_hyperpolicy` *is* PGPE.
Axis: P parameters.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pgjax import returns as return_functions
from pgjax import rollouts
from pgjax._checks import require_in_range
from pgjax._doors import readable
from pgjax.distributions import GaussianParameters, diagonal_gaussian
from pgjax.evaluation import greedy
from pgjax.types import Box, Environment, Policy, PyTree, Step


@readable
def parameter_exploring(
    environment: Environment, policy: Policy, params_like: PyTree, *, discount: float = 1.0
) -> Environment:
    """The one-step problem: A = θ flat `[P]`, R = Σ_t γᵗ R_{t+1} of one episode in which θ acts by its mode.

    Random numbers are drawn once per episode instead of once per step, so the variance of the score does not grow with
    the horizon; in return there are P dimensions to explore. θ differs from episode to episode: each step costs one
    whole episode, and each lane evaluates its own network. The observation is the constant 1, `[1]`. The horizon of the
    inner environment is part of the problem, and `params` are the inner environment's.

    Args:
        environment: the problem that is played inside a step.
        policy: f(x, θ). It acts by `distribution.mode`, so the spread of its distribution has no effect.
        params_like: a pytree with θ's structure, shapes and dtype; its values are not used.
        discount: γ in [0, 1] of the return; 1 is the objective of the problem itself.

    Raises:
        ValueError: if `discount` is outside [0, 1].

    Source: Sehnke et al. 2010; Zhao, Hachiya, Niu & Sugiyama 2011.

    Example: a linear policy for CartPole has 4 · 2 weights and 2 biases, and these ten numbers are one action.

        >>> import jax, jax.numpy as jnp
        >>> from pgjax import environments, networks
        >>> from pgjax.parameter_exploring import parameter_exploring
        >>> cartpole = environments.make("CartPole-v1")
        >>> policy = networks.make_policy(cartpole, hidden=())
        >>> params = policy.init(jax.random.key(0), jnp.zeros(4))
        >>> parameter_exploring(cartpole, policy, params_like=params).action_space.shape
        (10,)
    """
    require_in_range("discount", discount, 0.0, 1.0)
    flat, unravel = ravel_pytree(params_like)
    acting = greedy(policy)
    constant = lambda: jnp.ones((1,), flat.dtype)

    def reset(key: jax.Array, params: PyTree) -> tuple[tuple, jax.Array]:
        del key, params
        return (), constant()

    def step(key: jax.Array, state: tuple, action: jax.Array, params: PyTree) -> tuple[tuple, Step]:
        theta = unravel(action.astype(flat.dtype))
        episode = rollouts.episodes(environment, acting, theta, key[None], env_params=params)
        reward = return_functions.discounted_return(episode.rewards[:, 0], discount=discount)
        return state, Step(obs=constant(), reward=reward, terminated=jnp.ones((), jnp.bool_))

    return Environment(
        name=f"parameter_exploring({environment.name})",
        reset=reset,
        step=step,
        params=environment.params,
        observation_space=Box(low=1.0, high=1.0, shape=(1,), dtype=np.dtype(flat.dtype).type),
        action_space=Box(low=-np.inf, high=np.inf, shape=flat.shape, dtype=np.dtype(flat.dtype).type),
        horizon=1,
    )


@readable
def gaussian_hyperpolicy(params_like: PyTree, log_std: float = 0.0) -> Policy:
    """θ ~ N(m, s²) with independent coordinates, for every observation; its params are `GaussianParameters(m, ln s)`.

    m and ln s `[P]` are both learned. m starts at `params_like`, an initial θ, flattened in the order of
    `ravel_pytree`. After training `ravel_pytree(params_like)[1](params.mean)` is the θ to act with.

    Args:
        params_like: where m starts, a pytree with θ's structure.
        log_std: ln s at the start, a number or `[P]`.

    Raises:
        ValueError: if `log_std` is not a number.

    Source: Sehnke et al. 2010.
    """
    require_in_range("log_std", log_std, None, None)
    mean = ravel_pytree(params_like)[0]

    def init(key: jax.Array, obs: PyTree) -> GaussianParameters:
        del key, obs
        return GaussianParameters(mean=mean, log_std=jnp.broadcast_to(jnp.asarray(log_std, mean.dtype), mean.shape))

    return Policy(init=init, apply=lambda params, obs: params, distribution=diagonal_gaussian)
