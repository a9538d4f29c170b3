"""Slates of videos for a user with a time budget: recommend what is good, not only what is clicked."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import is_traced, require_in_range, require_integer
from pgjax.environments.rules import rule_policy
from pgjax.spaces import Slate
from pgjax.types import Box, Environment, Policy, Step


class SlateParams(NamedTuple):
    """Constants of the users and the videos; every leaf may be vmapped.

    Attributes:
        topic_quality: μ_c, the mean quality of the videos of each topic, `[K]`.
        quality_spread: the standard deviation of a video's quality around μ_c.
        length: ℓ, the length of a video, min.
        budget: B_0, the time that a user has at the start of a session, min.
        no_click_mass: the weight of no click, before 1 is added.
        step_penalty: what a step without a click takes from the budget, min.
        quality_gain: the share of the watched time that quality 1 gives back to the budget.
        interest_rate: how fast a click moves the interest in its topic.
    """

    topic_quality: jax.Array
    quality_spread: float = 0.1
    length: float = 4.0
    budget: float = 200.0
    no_click_mass: float = 1.0
    step_penalty: float = 0.5
    quality_gain: float = 0.9 / 3.4
    interest_rate: float = 0.3


class SlateState(NamedTuple):
    """A session of one user.

    Attributes:
        interests: u, in [−1, 1], `[K]`.
        budget: B, min.
        topics: the topic of each candidate, int32 `[m]`.
        qualities: the hidden quality q of each candidate, `[m]`.
        shown: the topics of the last slate's videos, int32 `[k]`; −1 at the start.
        clicked: the place of the last click in the slate, int32; −1 if there was none.
        quality: the quality of the video that was just watched, 0 if none was.
    """

    interests: jax.Array
    budget: jax.Array
    topics: jax.Array
    qualities: jax.Array
    shown: jax.Array
    clicked: jax.Array
    quality: jax.Array


def default_params(topics: int = 20) -> SlateParams:
    """The constants of RecSim: 70 % of the topics have mean qualities from −3 to 0, the others from 0 to 3.

    Raises:
        ValueError: if `topics` is below 2.
    """
    require_integer("topics", topics, 2, None)
    trashy = int(topics * 0.7)
    quality = np.concatenate([np.linspace(-3.0, 0.0, trashy), np.linspace(0.0, 3.0, topics - trashy)])
    return SlateParams(topic_quality=jnp.asarray(quality, jnp.float32))


def make_slates(
    topics: int = 20,
    candidates: int = 10,
    slate_size: int = 3,
    horizon: int = 400,
    observe_budget: bool = False,
    params: SlateParams | None = None,
) -> Environment:
    """Make RecSim's interest evolution: at each step recommend a slate of k of m fresh candidates to a user.

    A candidate has a topic c, uniform over K topics, a quality q ~ N(μ_c, 0.1²) that nobody sees, and the length
    ℓ = 4 min. A user has interests u ~ U[−1, 1]^K and the budget B_0 = 200 min. The user clicks on item i of the slate
    or on nothing with probabilities that are proportional to the weights

        u_{c_i} + 1  for item i,    n + 1 = 2  for no click.

    A click on a video of topic c and quality q is watched for w = min(B, ℓ), which is the reward, and then

        B ← B − w + (0.9 / 3.4) w q,    u_c ← clip(u_c ± 0.3 (1 − |u_c|)(1 − u_c), −1, 1),

    with + with probability (u_c + 1)/2, else −. Without a click, B ← B − 0.5 min, and the reward is 0. The session
    ends when B ≤ 0. All qualities below 3.78 cost time, so sessions end; with at least 0.5 min a step at q ≤ 3.3, 400
    steps are almost never too few. Videos of interesting topics are clicked, but videos of high quality make the
    session long: the best-liked slate is not the best one.

    The observation is the dict {"items": `[m, K + 1]`, "user": `[K]`}: for each candidate its topic, one-hot, and its
    affinity u_c; and the interests u. With `observe_budget`, "user" is `[K + 1]` and ends with B / B_0. The action is
    an element of `Slate(m, k)`; the order of a slate changes nothing. `network="items"` scores every candidate by the
    same network, and the policy's distribution is Plackett–Luce.

    The metrics are `click` (0 or 1), `watched_quality` (q of a watched video, else 0) and `budget` (min).

    Args:
        topics: K, at least 2.
        candidates: m, at least 1.
        slate_size: k, in [1, m].
        horizon: T, the greatest number of steps.
        observe_budget: whether the policy sees the budget, as RecSim's does not.
        params: the default parameters; None takes `default_params(topics)`.

    Raises:
        ValueError: for a number out of its range; the error names it.

    Source: Ie et al. (2019), "RecSim: a configurable simulation platform for recommender systems"
    (arXiv:1909.04847), environment interest evolution with its utility model; Ie et al. (2019), "SlateQ"
    (arXiv:1905.12767), section 6.

    Example:
        >>> from pgjax import environments
        >>> environments.make("slates").action_space
        Slate(10, 3)
    """
    require_integer("candidates", candidates, 1, None)
    require_integer("slate_size", slate_size, 1, candidates)
    require_integer("horizon", horizon, 1, None)
    if not isinstance(observe_budget, bool):
        raise ValueError(f"observe_budget must be False or True, got {observe_budget!r}")
    params = default_params(topics) if params is None else params
    require_possible(params, topics)

    def reset(key: jax.Array, params: SlateParams) -> tuple[SlateState, dict[str, jax.Array]]:
        user_key, video_key = jax.random.split(key)
        drawn_topics, qualities = _draw_videos(video_key, candidates, params)
        state = SlateState(
            interests=jax.random.uniform(user_key, (topics,), jnp.float32, -1.0, 1.0),
            budget=jnp.asarray(params.budget, jnp.float32),
            topics=drawn_topics,
            qualities=qualities,
            shown=jnp.full((slate_size,), -1, jnp.int32),
            clicked=jnp.full((), -1, jnp.int32),
            quality=jnp.zeros((), jnp.float32),
        )
        return state, _observe(state, params, observe_budget)

    def step(key: jax.Array, state: SlateState, action: jax.Array, params: SlateParams) -> tuple[SlateState, Step]:
        new, watched = _respond(key, state, action, params)
        ended = new.budget <= 0.0
        return new, Step(obs=_observe(new, params, observe_budget), reward=watched, terminated=ended)

    user_low, user_high = (-1.0,) * topics, (1.0,) * topics
    if observe_budget:
        user_low, user_high = (*user_low, -math.inf), (*user_high, math.inf)
    return Environment(
        name="slates",
        reset=reset,
        step=step,
        params=params,
        observation_space={
            "items": Box(low=-1.0, high=1.0, shape=(candidates, topics + 1)),
            "user": Box(low=user_low, high=user_high, shape=(len(user_low),)),
        },
        action_space=Slate(candidates, slate_size),
        horizon=horizon,
        render=_render,
        metrics=_metrics,
    )


def require_possible(params: SlateParams, topics: int) -> None:
    """Require that every number is in its range, and that sessions end.

    Raises:
        ValueError: the name of the number, its range, and the given value. Traced numbers are not checked.
    """
    shape = jnp.shape(params.topic_quality)
    if shape[-1:] != (topics,):
        raise ValueError(f"topic_quality must have one number for each of the {topics} topics, got shape {shape}")
    for name in ("length", "budget", "step_penalty"):
        require_in_range(name, getattr(params, name), 1e-3, None)
    require_in_range("quality_spread", params.quality_spread, 0.0, None)
    # A weight of no click below 0 would be no probability.
    require_in_range("no_click_mass", params.no_click_mass, -1.0, None)
    require_in_range("quality_gain", params.quality_gain, 0.0, None)
    require_in_range("interest_rate", params.interest_rate, 0.0, 1.0)
    if any(is_traced(leaf) for leaf in (params.topic_quality, params.quality_gain)):
        return
    if (gain := float(np.max(params.quality_gain))) > 0.0:
        require_in_range("topic_quality", params.topic_quality, None, 1.0 / gain)


def choice_probabilities(interests: jax.Array, params: SlateParams) -> jax.Array:
    """The probabilities of a click on each item of a slate, and of no click, `[k + 1]`.

    Args:
        interests: the user's interest in the topic of each item, `[k]`.

    Example: a user who is indifferent to one item and dislikes the other item as much as possible.

        >>> import jax.numpy as jnp
        >>> from pgjax.environments.slates import choice_probabilities, default_params
        >>> [round(float(p), 3) for p in choice_probabilities(jnp.array([0.0, -1.0]), default_params())]
        [0.333, 0.0, 0.667]
    """
    weights = jnp.append(interests + 1.0, jnp.asarray(params.no_click_mass, interests.dtype) + 1.0)
    weights = jnp.maximum(weights, 0.0)
    total = jnp.sum(weights)
    return jnp.where(
        total > 0.0, weights / jnp.where(total > 0.0, total, 1.0), jnp.arange(len(weights)) == len(interests)
    )


def myopic_policy(environment: Environment) -> Policy:
    """The policy that recommends the k candidates of the highest affinity, which are clicked most often; θ is `()`.

    Args:
        environment: made by `make_slates`.
    """
    k = environment.action_space.k
    return rule_policy(lambda key, obs: jax.lax.top_k(obs["items"][:, -1], k)[1].astype(jnp.int32))


def _draw_videos(key: jax.Array, candidates: int, params: SlateParams) -> tuple[jax.Array, jax.Array]:
    """The topics and the qualities of fresh candidates, `[m]` each."""
    topic_key, quality_key = jax.random.split(key)
    mean = jnp.asarray(params.topic_quality, jnp.float32)
    drawn = jax.random.randint(topic_key, (candidates,), 0, mean.shape[0])
    noise = jax.random.normal(quality_key, (candidates,), jnp.float32)
    return drawn, mean[drawn] + jnp.asarray(params.quality_spread, jnp.float32) * noise


def _respond(key: jax.Array, state: SlateState, slate: jax.Array, params: SlateParams) -> tuple[SlateState, jax.Array]:
    """The user's choice from a slate and what follows from it: the next state, and the watched time."""
    length, penalty, gain, rate = (
        jnp.asarray(p, jnp.float32)
        for p in (params.length, params.step_penalty, params.quality_gain, params.interest_rate)
    )
    choice_key, interest_key, video_key = jax.random.split(key, 3)
    shown = state.topics[slate]
    probabilities = choice_probabilities(state.interests[shown], params)
    # Inverse transform sampling: the first place where the summed probabilities exceed a uniform number.
    sums = jnp.cumsum(probabilities)
    choice = jnp.sum(jax.random.uniform(choice_key, (), jnp.float32) * sums[-1] >= sums)
    clicked = choice < slate.shape[0]
    place = jnp.minimum(choice, slate.shape[0] - 1)

    topic, quality = shown[place], state.qualities[slate[place]]
    watched = jnp.where(clicked, jnp.minimum(state.budget, length), 0.0)
    spent = jnp.where(clicked, watched * (1.0 - gain * quality), penalty)
    interest = state.interests[topic]
    up = jax.random.uniform(interest_key, (), jnp.float32) < 0.5 * (interest + 1.0)
    change = rate * (1.0 - jnp.abs(interest)) * (1.0 - interest)
    moved = jnp.clip(interest + jnp.where(up, change, -change), -1.0, 1.0)
    topics, qualities = _draw_videos(video_key, state.topics.shape[0], params)
    new = SlateState(
        interests=state.interests.at[topic].set(jnp.where(clicked, moved, interest)),
        budget=state.budget - spent,
        topics=topics,
        qualities=qualities,
        shown=shown,
        clicked=jnp.where(clicked, choice, -1).astype(jnp.int32),
        quality=jnp.where(clicked, quality, 0.0),
    )
    return new, watched


def _observe(state: SlateState, params: SlateParams, observe_budget: bool) -> dict[str, jax.Array]:
    topic = jax.nn.one_hot(state.topics, state.interests.shape[0], dtype=jnp.float32)
    items = jnp.concatenate([topic, state.interests[state.topics][:, None]], axis=1)
    user = state.interests
    if observe_budget:
        user = jnp.append(user, state.budget / jnp.asarray(params.budget, jnp.float32))
    return {"items": items, "user": user}


def _metrics(state: SlateState, obs: dict[str, jax.Array], params: SlateParams) -> dict[str, jax.Array]:
    del obs, params
    return {"click": state.clicked >= 0, "watched_quality": state.quality, "budget": state.budget}


def _render(state: SlateState, obs: dict[str, jax.Array], params: SlateParams) -> np.ndarray:
    from pgjax.environments import shop_pictures

    del obs
    return shop_pictures.session(
        np.asarray(state.interests),
        np.asarray(params.topic_quality),
        shown=np.asarray(state.shown),
        clicked=int(state.clicked),
        budget=float(state.budget) / float(params.budget),
    )
