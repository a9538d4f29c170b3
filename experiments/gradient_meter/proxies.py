"""The variance proxies that verl logs, and their exact expectations beside those of the gradient that they stand for.

An episode of T steps has the gradient ĝ = Σ_t A_t ∇ ln π(a_t), and a batch of N episodes has ḡ = (1/N) Σ_i ĝ_i. verl
needs no gradient of an episode. With A = (1/T) Σ_t A_t and W = Σ_t w_t,

    w_t = 1 − 2 π(a_t) + Σ_a π(a)² = ‖∂ ln π(a_t) / ∂ logits‖²
    proxy1 = ‖ḡ‖²,    proxy2 = (1/N) Σ_i A_i² W_i,    proxy3 = max(0, (proxy2 − proxy1) / (N − 1))

stand for ‖E ḡ‖², E‖ĝ‖² and tr Var ḡ. They are computed here from these formulas; nothing is taken from verl's code.

Source: verl (github.com/volcengine/verl, commit b178a3c of 29 January 2026), `compute_variance_proxy_metrics` in
verl/trainer/ppo/metric_utils.py, and docs/algo/otb.md, “Gradient Variance Proxy Metrics”. The default of
`loss_agg_mode` in verl/trainer/config/actor/actor.yaml is token-mean. Axes: T time, N episodes, A actions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.gradient_meter.cases import Case
from experiments.gradient_meter.graded import Setting, mean_and_stderr, setting
from pgjax import estimators, exact
from pgjax.types import Policy, PyTree, Trajectory


class Proxies(NamedTuple):
    """verl's proxies of one batch, each a scalar; `unclipped` is proxy3 without the maximum with 0."""

    signal: jax.Array
    power: jax.Array
    noise: jax.Array
    unclipped: jax.Array


def logit_score_norms(logits: jax.Array, actions: jax.Array) -> jax.Array:
    """w = 1 − 2 π(a) + Σ π², the squared norm of the score with respect to the logits; `[..., A] → [...]`."""
    probabilities = jax.nn.softmax(logits)
    taken = jnp.take_along_axis(probabilities, actions[..., None], axis=-1)[..., 0]
    return 1.0 - 2.0 * taken + jnp.sum(jnp.square(probabilities), axis=-1)


def verl_proxies(
    logits: jax.Array, actions: jax.Array, alive: jax.Array, advantages: jax.Array, squared_norm: jax.Array
) -> Proxies:
    """The proxies of a batch of N ≥ 2 episodes.

    Args:
        logits: `[T, N, A]`.
        actions, alive, advantages: `[T, N]`.
        squared_norm: ‖ḡ‖² of the gradient of the batch.
    """
    count = alive.shape[1]
    masked = lambda x: jnp.sum(jnp.where(alive, x, 0.0), axis=0)
    mean_advantage = masked(advantages) / jnp.maximum(jnp.sum(alive, axis=0), 1)
    energy = jnp.maximum(masked(logit_score_norms(logits, actions)), 0.0)
    power = jnp.mean(jnp.square(mean_advantage) * energy)
    unclipped = (power - squared_norm) / (count - 1)
    return Proxies(signal=squared_norm, power=power, noise=jnp.maximum(unclipped, 0.0), unclipped=unclipped)


class Ladder(NamedTuple):
    """Expectations between proxy2 and E‖ĝ‖², each with one step fewer of the approximation.

    Attributes:
        proxy: E[A² W], the advantage averaged over the episode: E[proxy2].
        per_step: E Σ_t A_t² w_t.
        parameters: E Σ_t A_t² ‖∇_θ ln π(a_t)‖², with the parameters in the place of the logits.
        power: E‖Σ_t A_t ∇_θ ln π(a_t)‖² = E‖ĝ‖², with the products between steps.
    """

    proxy: jax.Array
    per_step: jax.Array
    parameters: jax.Array
    power: jax.Array


def _ladder(policy: Policy, params: PyTree, batch: Trajectory, advantages: jax.Array) -> Ladder:
    """The four means over the episodes of one batch."""
    logits = jax.vmap(jax.vmap(lambda obs: policy.apply(params, obs)))(batch.obs)

    def score(obs: PyTree, action: jax.Array) -> jax.Array:
        log_prob = lambda theta: jax.nn.log_softmax(policy.apply(theta, obs))[action]
        return ravel_pytree(jax.grad(log_prob)(params))[0]

    scores = jax.vmap(jax.vmap(score))(batch.obs, batch.actions)
    weights = jnp.where(batch.alive, advantages, 0.0)
    terms = weights[..., None] * scores
    found = verl_proxies(logits, batch.actions, batch.alive, advantages, jnp.zeros(()))
    per_step = jnp.square(weights) * logit_score_norms(logits, batch.actions)
    return Ladder(
        proxy=found.power,
        per_step=jnp.mean(jnp.sum(per_step, axis=0)),
        parameters=jnp.mean(jnp.sum(jnp.square(terms), axis=(0, 2))),
        power=jnp.mean(jnp.sum(jnp.square(jnp.sum(terms, axis=0)), axis=-1)),
    )


class Compared(NamedTuple):
    """The exact numbers of one gradient beside the exact expectations of verl's proxies.

    Attributes:
        signal, power, noise: ‖E ḡ‖², E‖ĝ‖², tr Var ḡ.
        proxies: the expectations of verl's proxies. They are exact; only the maximum with 0 in `noise` needs all
            batches, and if there are too many to enumerate, `noise` is a mean over drawn batches.
        noise_stderr: the standard error of `proxies.noise`; 0 if it is exact.
        num_episodes: N.
        ladder: the expectations between proxy2 and the squared norm of an episode's sum over steps.
        scale: E‖ĝ‖² divided by the last number of the ladder: 1, or 1/T² for a mean over tokens.
    """

    signal: float
    power: float
    noise: float
    proxies: Proxies
    noise_stderr: float
    num_episodes: int
    ladder: Ladder
    scale: float

    @property
    def factors(self) -> dict[str, float]:
        """Why E[proxy2] is not E‖ĝ‖²: the factor of each approximation. Their product is E[proxy2] / E‖ĝ‖²."""
        proxy, per_step, parameters, power = self.ladder
        return {
            "one advantage for the episode": proxy / per_step,
            "logits in place of parameters": per_step / parameters,
            "products between steps left out": parameters / power,
            "mean over tokens ignored": 1.0 / self.scale,
        }

    @property
    def dependence(self) -> float:
        """(E‖ĝ‖² − E‖ḡ‖²) / (N − 1) divided by tr Var ḡ: 1 if the episodes are independent."""
        return (self.power - self.signal - self.noise) / (self.num_episodes - 1) / self.noise


def compare(case: Case, limit: int, drawn: int, seed: int) -> Compared:
    """The exact numbers of a case, whose groups are independent.

    Args:
        limit: the largest number of batches that are enumerated for E[proxy3].
        drawn: the number of batches that are drawn with `seed` if there are more; they need groups of one episode.
    """
    weighting = estimators.make_weighting(**case.weights)
    with jax.enable_x64(True):
        made = setting(case)
        weigh = lambda batch: weighting.weigh(weighting.init(jax.random.key(0), batch), batch)[0]
        of = lambda batch: made.estimator.gradient(made.params, made.state, batch)[0]
        steps = lambda batch: _ladder(case.policy, made.params, batch, weigh(batch))
        each = lambda batch: made.estimator.episode_gradients(made.params, made.state, batch)
        power = lambda batch: jnp.sum(jnp.square(jax.vmap(lambda g: ravel_pytree(g)[0])(each(batch)))) / case.group
        together = lambda batch: {"gradient": of(batch), "ladder": steps(batch), "power": power(batch)}
        found = _moments(made, together, case.group, case.group, 10**6)
        mean = ravel_pytree(found.mean["gradient"])[0]
        signal = float(mean @ mean)
        spread = sum(float(jnp.sum(x)) for x in jax.tree.leaves(found.variance["gradient"]))
        noise = spread * case.group / case.batch
        ladder = Ladder(*map(float, found.mean["ladder"]))
        squared_norm, total = signal + noise, float(found.mean["power"])
        unclipped = (ladder.proxy - squared_norm) / (case.batch - 1)
        proxies = Proxies(signal=squared_norm, power=ladder.proxy, noise=unclipped, unclipped=unclipped)
        whole = lambda batch: _proxies_of(case, made, of, weigh, batch)
        stderr = 0.0
        if exact.count_batches(made.enumeration, case.batch, group_size=case.group) <= limit:
            proxies = Proxies(*map(float, _moments(made, whole, case.batch, case.group, limit).mean))
        else:
            sampled, stderr = mean_and_stderr(_drawn(case, made, lambda batch: whole(batch).noise, drawn, seed))
            proxies = proxies._replace(noise=sampled)
    return Compared(
        signal=signal,
        power=total,
        noise=noise,
        proxies=proxies,
        noise_stderr=stderr,
        num_episodes=case.batch,
        ladder=ladder,
        scale=total / ladder.power,
    )


def _moments(made: Setting, function, size: int, group: int, limit: int) -> exact.Moments:
    return jax.device_get(
        exact.estimator_moments(
            function, made.enumeration, made.probabilities, size, group_size=group, limit=limit, batch_size=256
        )
    )


def _drawn(case: Case, made: Setting, function, count: int, seed: int) -> np.ndarray:
    """`function` of `count` batches of B episodes that are drawn with their probabilities, `[count]`."""

    @jax.jit
    def draw(key: jax.Array) -> jax.Array:
        indices = jax.random.categorical(key, jnp.log(made.probabilities), shape=(count, case.batch))
        of = lambda chosen: function(exact.select_episodes(made.enumeration.trajectories, chosen))
        return jax.lax.map(of, indices, batch_size=min(count, 256))

    return np.asarray(draw(jax.random.key(seed)))


def _proxies_of(case: Case, made: Setting, of, weigh, batch: Trajectory) -> Proxies:
    logits = jax.vmap(jax.vmap(lambda obs: case.policy.apply(made.params, obs)))(batch.obs)
    gradient = ravel_pytree(of(batch))[0]
    return verl_proxies(logits, batch.actions, batch.alive, weigh(batch), gradient @ gradient)
