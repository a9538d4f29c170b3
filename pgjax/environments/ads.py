"""Advertisements for the visitors of a shop, who look around for a while and then see ads on other pages."""

import math
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import is_traced, require_in_range, require_integer, require_one_of
from pgjax.types import Box, Discrete, Environment, Step

Link = Literal["recogym", "sharp"]


class AdsParams(NamedTuple):
    """The shop: its products, and how visitors move between its pages and other pages; every leaf may be vmapped.

    Attributes:
        organic_factors, bandit_factors: Γ and β, what views and clicks have to do with a visitor's interests, `[P, K]`.
        organic_popularity, bandit_popularity: μ and μ_b, `[P]`.
        drift: the standard deviation of the change of ω at an organic event.
        organic_to_bandit, bandit_to_organic: the probabilities that the visitor leaves the shop's pages for others,
            and that it comes back.
        leave: the probability of the session's end after an event.
    """

    organic_factors: jax.Array
    bandit_factors: jax.Array
    organic_popularity: jax.Array
    bandit_popularity: jax.Array
    drift: float = 0.1
    organic_to_bandit: float = 0.25
    bandit_to_organic: float = 0.05
    leave: float = 0.01


class AdsState(NamedTuple):
    """The session of one visitor.

    Attributes:
        interests: ω, `[K]`.
        views: how often each product was viewed in the session, `[P]`.
        last_view: the product that was viewed last, int32; −1 before the first view.
        bandit: whether the next event is a bandit event, at which an ad is shown; else the visitor views a product.
        ad: the product of the ad that was just shown, int32; −1 if the last event was organic.
        click: whether this ad was clicked.
        click_probability, best_click_probability: of this ad and of the best one, 0 after an organic event.
    """

    interests: jax.Array
    views: jax.Array
    last_view: jax.Array
    bandit: jax.Array
    ad: jax.Array
    click: jax.Array
    click_probability: jax.Array
    best_click_probability: jax.Array


def draw_shop(products: int = 10, factors: int = 5, flips: int = 0, shop_seed: int = 0) -> AdsParams:
    """A random shop: Γ ~ N(0, 1) `[P, K]`, μ ~ N(0, 3²) `[P]`, and β and μ_b are Γ and μ with exchanged rows.

    Args:
        flips: how many pairs of products exchange their rows in β and μ_b, the most similar pairs first, in [0, P / 2].
            Without flips, visitors click on what they view.
        shop_seed: the seed of the shop.
    """
    require_integer("products", products, 2, None)
    require_integer("factors", factors, 1, None)
    require_integer("flips", flips, 0, products // 2)
    require_integer("shop_seed", shop_seed, 0, None)
    rng = np.random.default_rng(shop_seed)
    gamma, mu = rng.normal(size=(products, factors)), 3.0 * rng.normal(size=products)
    order, alike = np.arange(products), gamma @ gamma.T
    np.fill_diagonal(alike, -np.inf)
    for _ in range(flips):
        first, second = np.unravel_index(np.argmax(alike), alike.shape)
        order[[first, second]] = second, first
        alike[[first, second]], alike[:, [first, second]] = -np.inf, -np.inf
    gamma, beta, mu, mu_b = (jnp.asarray(x, jnp.float32) for x in (gamma, gamma[order], mu, mu[order]))
    return AdsParams(organic_factors=gamma, bandit_factors=beta, organic_popularity=mu, bandit_popularity=mu_b)


def make_ads(
    products: int = 10,
    factors: int = 5,
    flips: int = 0,
    shop_seed: int = 0,
    link: Link = "recogym",
    horizon: int = 1000,
    params: AdsParams | None = None,
) -> Environment:
    """Make RecoGym's simulator of ads: learn from what a visitor views which ad it will click.

    A visitor has interests ω ~ N(0, I) `[K]`, and its session is a chain of events. At an *organic* event it views
    product v ~ softmax(Γ ω + μ) in the shop. At a *bandit* event it sees the ad of product a on another page, and
    clicks with probability f(β_a·ω + μ_{b,a}), where σ(x) = 1/(1 + e^{−x}) and

        f(x) = σ(5 σ(2 σ(0.3 x) − 2) − 6)  in (0.448 %, 2.931 %)   for link "recogym",
        f(x) = 0.05 + 0.55 σ(x)            in (5 %, 60 %)          for link "sharp".

    The reward is 1 for a click, else 0. After an event the session ends with probability 0.01; an organic event is
    followed by a bandit event with probability 0.25, a bandit event by an organic one with probability 0.05, and
    otherwise the kind stays. A click is always followed by an organic event. Whenever an organic event follows, the
    interests drift, ω ← ω + 0.1 N(0, I). The first event is organic. Γ, μ, β and μ_b are the same for all visitors.

    At an organic event no ad is shown: `action_mask` then allows action 0 alone, whose score is exactly 0, and the
    action is ignored. At a bandit event all P ads are allowed.

    The observation is float32 `[2 P + 2]`: the shares of the products in the session's views (0 before the first), the
    last view, one-hot, ln(1 + number of views) / 5, and 1 at a bandit event, else 0.

    The metrics are `impression` and `click` (0 or 1), and `regret`, max_a f(β_a·ω + μ_{b,a}) minus the click
    probability of the ad that was shown, which only a policy that knows ω could keep at 0. Divide the totals of `click`
    and `regret` by that of `impression` for the click-through rate and the regret of an ad.

    Args:
        products: P, at least 2.
        factors: K, at least 1.
        flips, shop_seed: see `draw_shop`.
        link: f, "recogym" or "sharp".
        horizon: T; a session is longer than 1000 events with probability of about 4e-5.
        params: the default parameters; None draws a shop.

    Raises:
        ValueError: for a number out of its range; the error names it.

    Source: Rohde, Bonner, Dunlop, Vasile and Karatzoglou (2018), "RecoGym" (arXiv:1808.00720), its second environment;
    the link "sharp" is this project's, for experiments of a smaller size.

    Example:
        >>> from pgjax import environments
        >>> environments.make("ads", link="sharp").action_space
        Discrete(10)
    """
    require_one_of("link", link, get_args(Link))
    require_integer("horizon", horizon, 1, None)
    params = draw_shop(products, factors, flips, shop_seed) if params is None else params
    require_possible(params, products, factors)

    longest = math.log1p(horizon) / 5.0

    def reset(key: jax.Array, params: AdsParams) -> tuple[AdsState, jax.Array]:
        del params
        zero, nothing = jnp.zeros((), jnp.float32), jnp.full((), -1, jnp.int32)
        state = AdsState(
            interests=jax.random.normal(key, (factors,), jnp.float32),
            views=jnp.zeros(products, jnp.float32),
            last_view=nothing,
            bandit=jnp.zeros((), jnp.bool_),
            ad=nothing,
            click=jnp.zeros((), jnp.bool_),
            click_probability=zero,
            best_click_probability=zero,
        )
        return state, _observe(state)

    def step(key: jax.Array, state: AdsState, action: jax.Array, params: AdsParams) -> tuple[AdsState, Step]:
        new, ended = _event(key, state, action, jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params), link)
        return new, Step(obs=_observe(new), reward=new.click.astype(jnp.float32), terminated=ended)

    return Environment(
        name="ads",
        reset=reset,
        step=step,
        params=params,
        observation_space=Box(low=0.0, high=(*(1.0,) * (2 * products), longest, 1.0), shape=(2 * products + 2,)),
        action_space=Discrete(products),
        horizon=horizon,
        render=lambda state, obs, params: _render(state, params, link),
        action_mask=lambda obs: (obs[-1] > 0.5) | (jnp.arange(products) == 0),
        metrics=_metrics,
    )


def require_possible(params: AdsParams, products: int, factors: int) -> None:
    """Require that every array has its shape, and that every number is in its range.

    Raises:
        ValueError: the name of the number, its range, and the given value. Traced numbers are not checked.
    """
    shapes = {"factors": (products, factors), "popularity": (products,)}
    for name in ("organic_factors", "bandit_factors", "organic_popularity", "bandit_popularity"):
        wanted, got = shapes[name.split("_")[1]], jnp.shape(getattr(params, name))
        if got[len(got) - len(wanted) :] != wanted:
            raise ValueError(f"{name} must have the shape {wanted} of products and factors, got {got}")
    require_in_range("drift", params.drift, 0.0, None)
    require_in_range("leave", params.leave, 1e-3, 1.0)
    for name in ("organic_to_bandit", "bandit_to_organic"):
        value = getattr(params, name)
        stay = 1.0 if is_traced(params.leave) else 1.0 - float(np.max(params.leave))
        require_in_range(name, value, 0.0, stay)


def click_probabilities(interests: jax.Array, params: AdsParams, link: Link = "recogym") -> jax.Array:
    """f(β ω + μ_b), the probability of a click on the ad of each product, `[P]`, for a visitor's interests `[K]`."""
    scores = params.bandit_factors @ interests + params.bandit_popularity
    return link_function(scores, link)


def link_function(scores: jax.Array, link: Link) -> jax.Array:
    """f of `make_ads`, elementwise.

    Example:
        >>> from pgjax.environments.ads import link_function
        >>> round(float(link_function(0.0, "recogym")), 5)
        0.00942
    """
    sigmoid = jax.nn.sigmoid
    if link == "sharp":
        return 0.05 + 0.55 * sigmoid(scores)
    return sigmoid(5.0 * sigmoid(2.0 * sigmoid(0.3 * scores) - 2.0) - 6.0)


def expected_events(params: AdsParams, click_rate: float = 0.0) -> tuple[float, float]:
    """The expected numbers of organic and of bandit events of a session, if every ad is clicked with one probability.

    They are the first row of (I − Q)⁻¹, where Q holds the probabilities of going from one kind of event to another; a
    click is followed by an organic event. There is no horizon.
    """
    leave, out, back = (float(p) for p in (params.leave, params.organic_to_bandit, params.bandit_to_organic))
    stay = (1.0 - click_rate) * np.array([back, 1.0 - back - leave]) + click_rate * np.array([1.0, 0.0])
    visits = np.linalg.inv(np.eye(2) - np.array([[1.0 - out - leave, out], stay]))[0]
    return float(visits[0]), float(visits[1])


def _event(
    key: jax.Array, state: AdsState, action: jax.Array, params: AdsParams, link: Link
) -> tuple[AdsState, jax.Array]:
    """The state after one event, and whether it was the last."""
    view_key, click_key, next_key, drift_key = jax.random.split(key, 4)
    products = state.views.shape[0]
    view = jax.random.categorical(view_key, params.organic_factors @ state.interests + params.organic_popularity)
    rates = click_probabilities(state.interests, params, link)
    click = state.bandit & (jax.random.uniform(click_key, (), jnp.float32) < rates[action])

    # One uniform number decides: below `leave` the session ends, and above that the kind changes with its probability.
    draw = jax.random.uniform(next_key, (), jnp.float32)
    change = jnp.where(state.bandit, params.bandit_to_organic, params.organic_to_bandit)
    ended = (draw < params.leave) & ~click
    changed = (draw >= params.leave) & (draw < params.leave + change)
    bandit = (state.bandit ^ changed) & ~click
    drift = params.drift * jax.random.normal(drift_key, state.interests.shape, jnp.float32)
    new = AdsState(
        interests=state.interests + jnp.where(bandit, 0.0, drift),
        views=state.views + jnp.where(state.bandit, 0.0, jax.nn.one_hot(view, products, dtype=jnp.float32)),
        last_view=jnp.where(state.bandit, state.last_view, view).astype(jnp.int32),
        bandit=bandit,
        ad=jnp.where(state.bandit, action, -1).astype(jnp.int32),
        click=click,
        click_probability=jnp.where(state.bandit, rates[action], 0.0),
        best_click_probability=jnp.where(state.bandit, jnp.max(rates), 0.0),
    )
    return new, ended


def _observe(state: AdsState) -> jax.Array:
    total = jnp.sum(state.views)
    last = jax.nn.one_hot(state.last_view, state.views.shape[0], dtype=jnp.float32)
    size, kind = jnp.log1p(total) / 5.0, state.bandit.astype(jnp.float32)
    return jnp.concatenate([state.views / jnp.maximum(total, 1.0), last, jnp.stack([size, kind])])


def _metrics(state: AdsState, obs: jax.Array, params: AdsParams) -> dict[str, jax.Array]:
    del obs, params
    regret = state.best_click_probability - state.click_probability
    return {"impression": state.ad >= 0, "click": state.click, "regret": regret}


def _render(state: AdsState, params: AdsParams, link: Link) -> np.ndarray:
    from pgjax.environments import shop_pictures

    return shop_pictures.visitor(
        np.asarray(state.views),
        np.asarray(click_probabilities(state.interests, params, link)),
        bandit=bool(state.bandit),
        ad=int(state.ad),
        click=bool(state.click),
        last_view=int(state.last_view),
    )
