"""Returns against plain-Python sums, their limits, and the two masks, in float64 with strict promotion."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from closeness import close, far
from jax.test_util import check_grads

from pgjax import returns

pytestmark = pytest.mark.usefixtures("strict", "x64")

T = 12
# One episode terminated at row 3, one truncated at row 7, one cut by the end of the stream.
TERMINATED, TRUNCATED = np.arange(T) == 3, np.arange(T) == 7
REWARDS, VALUES, AT_CUTS = np.random.default_rng(0).normal(size=(3, T))
# Inside an episode the next value is the next row's; at a cut it is that of an observation no row shows.
NEXT_VALUES = np.where(TERMINATED | TRUNCATED | (np.arange(T) == T - 1), AT_CUTS, np.roll(VALUES, -1))
STREAM = {
    "rewards": REWARDS,
    "values": VALUES,
    "next_values": NEXT_VALUES,
    "terminated": TERMINATED,
    "truncated": TRUNCATED,
}
MASKED = ("rewards", "next_values", "terminated", "truncated")
# Each rule with the arrays and the hyper-parameters it takes.
RULES = {
    "total_return": (("rewards",), ()),
    "discounted_return": (("rewards",), ("discount",)),
    "reward_to_go": (("rewards",), ("discount",)),
    "n_step_returns": (MASKED, ("n", "discount")),
    "lambda_returns": (MASKED, ("discount", "lambda_")),
    "gae": (("rewards", "values", *MASKED[1:]), ("discount", "lambda_")),
}
GRID = {"n": [1, 2, 5, T, 40], "discount": [0.0, 0.5, 0.97, 1.0], "lambda_": [0.0, 0.3, 0.9, 1.0]}
BOOTSTRAPPED = ("n_step_returns", "lambda_returns", "gae")


def arrays(rule, stream=STREAM, **changes):
    return [jnp.asarray({**stream, **changes}[name]) for name in RULES[rule][0]]


def call(rule, discount=0.9, lambda_=0.8, n=3, stream=STREAM, **changes):
    """The shipped function on the stream with some of its arrays replaced."""
    given = {"discount": discount, "lambda_": lambda_, "n": n}
    function = getattr(returns, rule)
    return function(*arrays(rule, stream, **changes), **{name: given[name] for name in RULES[rule][1]})


@pytest.mark.parametrize("rule", RULES)
def test_traced_hyper_parameters_give_the_sums_of_the_definition(rule):
    names, hypers = RULES[rule]
    grid = list(itertools.product(*(GRID[hyper] for hyper in hypers)))
    function = lambda *values: getattr(returns, rule)(*arrays(rule), **dict(zip(hypers, values)))
    columns = [jnp.asarray(column) for column in zip(*grid)]
    got = jax.jit(jax.vmap(function))(*columns) if hypers else jax.jit(function)()[None]
    reference = getattr(references, rule)
    wanted = [reference(*(STREAM[name].tolist() for name in names), **dict(zip(hypers, point))) for point in grid]
    close(got, wanted)


@pytest.mark.parametrize("rule", RULES)
def test_jit_is_eager_and_vmap_is_a_loop(rule):
    names, _ = RULES[rule]
    second = {name: np.roll(STREAM[name], 1)[::-1] for name in names}
    stacked = [jnp.stack([jnp.asarray(STREAM[name]), jnp.asarray(second[name])], axis=1) for name in names]
    function = lambda *streams: call(rule, stream=dict(zip(names, streams)))
    out_axes = 0 if call(rule).ndim == 0 else 1
    batched = jax.jit(jax.vmap(function, in_axes=1, out_axes=out_axes))(*stacked)
    close(batched, jnp.stack([call(rule), call(rule, stream=second)], axis=out_axes))


def test_discount_weights():
    for discount in (0.0, 0.9, 1.0):
        close(returns.discount_weights(5, discount), references.discount_weights(5, discount))
    gradient = jax.grad(lambda discount: jnp.sum(returns.discount_weights(4, discount)))
    close(gradient(jnp.asarray(0.5)), 1 + 2 * 0.5 + 3 * 0.25)


def test_returns_start_their_own_clock():
    """γᵗ G_t = Σ_{k ≥ t} γᵏ R_{k+1}: the twin that sums γᵏ R_{k+1} from t on is not the return."""
    weights = returns.discount_weights(T, 0.9)
    to_go = returns.reward_to_go(jnp.asarray(REWARDS), discount=0.9)
    twin = jnp.cumsum((weights * REWARDS)[::-1])[::-1]
    close(weights * to_go, twin)
    far(to_go, twin)
    close(to_go[0], returns.discounted_return(jnp.asarray(REWARDS), discount=0.9))
    close(returns.discounted_return(jnp.asarray(REWARDS), discount=1.0), returns.total_return(jnp.asarray(REWARDS)))


def test_lambda_one_is_monte_carlo_and_lambda_zero_the_td_error():
    episodes = [(0, 4, 0.0), (4, 8, NEXT_VALUES[7]), (8, T, NEXT_VALUES[T - 1])]
    monte_carlo = np.concatenate(
        [references.reward_to_go([*REWARDS[start:end], last], 0.9)[:-1] for start, end, last in episodes]
    )
    error = REWARDS + 0.9 * np.where(TERMINATED, 0.0, NEXT_VALUES) - VALUES
    close(call("lambda_returns", lambda_=1.0), monte_carlo)
    close(call("n_step_returns", n=T), monte_carlo)
    close(call("gae", lambda_=1.0), monte_carlo - VALUES)
    close(call("gae", lambda_=0.0), error)
    close(call("lambda_returns", lambda_=0.0), error + VALUES)
    close(call("n_step_returns", n=1), error + VALUES)
    close(call("gae", discount=0.0), REWARDS - VALUES)


def test_gae_is_the_lambda_return_minus_the_value():
    close(call("gae"), call("lambda_returns") - VALUES)


@pytest.mark.parametrize("rule", BOOTSTRAPPED)
def test_nothing_flows_back_across_a_cut(rule):
    """Three episodes in one stream are three streams. The twin that ignores `truncated` leaks."""
    pieces = [slice(0, 4), slice(4, 8), slice(8, T)]
    part = lambda piece: {name: array[piece] for name, array in STREAM.items()}
    separate = np.concatenate([call(rule, stream=part(piece)) for piece in pieces])
    close(call(rule), separate)
    far(call(rule, truncated=np.zeros(T, bool)), separate)


@pytest.mark.parametrize("rule", BOOTSTRAPPED)
def test_an_endless_chain_cut_by_a_horizon_is_worth_one_over_one_minus_gamma(rule):
    """R = 1 for ever, v = 1/(1 − γ). The twin that uses done for both masks loses γᵏ/(1 − γ)."""
    value = 1 / (1 - 0.9)
    endless = {
        "rewards": np.ones(T),
        "values": np.full(T, value),
        "next_values": np.full(T, value),
        "terminated": np.zeros(T, bool),
        "truncated": np.arange(T) % 5 == 4,
    }
    wanted = np.zeros(T) if rule == "gae" else np.full(T, value)
    close(call(rule, stream=endless), wanted)
    done = endless["terminated"] | endless["truncated"]
    far(call(rule, stream=endless, terminated=done), wanted, tolerance=1.0)


@pytest.mark.parametrize("rule", BOOTSTRAPPED)
def test_a_terminal_value_is_never_read(rule):
    """Not even as 0 · NaN; the value at a truncation is."""
    unread = np.where(TERMINATED, np.nan, NEXT_VALUES)
    close(call(rule, next_values=unread), call(rule))
    far(call(rule, next_values=np.where(TRUNCATED, 5.0, NEXT_VALUES)), call(rule))


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "total_return"])
@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_the_length_of_the_padding_changes_nothing(rule, end):
    """Rows after the end have zero rewards, no mask set, and any values."""
    episode = {**STREAM, "terminated": np.zeros(T, bool), "truncated": np.zeros(T, bool), end: np.arange(T) == T - 1}

    def pad(name, array):
        filler = 0 if name in ("rewards", "terminated", "truncated") else 77.0
        return np.concatenate([array, np.full(5, filler, array.dtype)])

    padded = {name: pad(name, array) for name, array in episode.items()}
    got = call(rule, stream=padded)
    close(got[:T] if got.ndim else got, call(rule, stream=episode))


def test_gae_with_the_true_values_is_unbiased_for_every_lambda():
    """Over all paths of a tree, E[A_0 | first branch] = q − v. With a wrong value only λ = 1 stays unbiased."""
    depth, up = 3, 0.3
    rewards_of = lambda path: [(1 + t) * bit + 0.5 * sum(path[:t]) for t, bit in enumerate(path)]
    paths = list(itertools.product((0, 1), repeat=depth))
    probability = lambda bits: np.prod([up if bit else 1 - up for bit in bits])

    def value(prefix):
        tails = [path for path in paths if path[: len(prefix)] == prefix]
        going_on = [probability(path[len(prefix) :]) * sum(rewards_of(path)[len(prefix) :]) for path in tails]
        return sum(going_on)

    def expected_advantage(lambda_, error):
        v = lambda prefix: value(prefix) + error * (0 < len(prefix) < depth)
        rows = [
            (rewards_of(path), [v(path[:t]) for t in range(depth)], [v(path[: t + 1]) for t in range(depth)])
            for path in paths
        ]
        end = jnp.asarray([False, False, True])
        one = lambda row: returns.gae(*row, end, ~end & end, discount=1.0, lambda_=lambda_)
        advantages = jax.vmap(one)(tuple(jnp.asarray(column) for column in zip(*rows)))[:, 0]
        weights = np.asarray([probability(path[1:]) * path[0] for path in paths])
        return weights @ np.asarray(advantages)

    wanted = 1.0 + value((1,)) - value(())
    for lambda_ in (0.0, 0.6, 1.0):
        close(expected_advantage(lambda_, 0.0), wanted)
    close(expected_advantage(1.0, 2.0), wanted)
    # A_0 = Σ λᵏ δ_k with v off by 2 at depths 1 and 2: the error left is 2 (1 − λ) (1 + λ).
    close(expected_advantage(0.6, 2.0) - wanted, 2.0 * 0.4 * 1.6)


@pytest.mark.parametrize("rule", ["lambda_returns", "gae", "n_step_returns", "reward_to_go"])
def test_agrees_with_rlax(rule, rlax):
    """rlax has one mask, a discount per step; a stream that only terminates, its next value being the next row."""
    none = np.zeros(T, bool)
    bridged = np.concatenate([VALUES[1:], NEXT_VALUES[-1:]])
    rewards, following = jnp.asarray(REWARDS), jnp.asarray(bridged)
    discounts = jnp.asarray(0.9 * ~TERMINATED)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        wanted = {
            "lambda_returns": lambda: rlax.lambda_returns(rewards, discounts, following, 0.8),
            "gae": lambda: rlax.truncated_generalized_advantage_estimation(
                rewards, discounts, 0.8, jnp.concatenate([jnp.asarray(VALUES), following[-1:]])
            ),
            "n_step_returns": lambda: rlax.n_step_bootstrapped_returns(rewards, discounts, following, 3),
            "reward_to_go": lambda: rlax.discounted_returns(rewards, jnp.full(T, 0.9), jnp.zeros(T)),
        }[rule]()
    close(call(rule, truncated=none, next_values=bridged), wanted)


def test_known_numbers_of_steps_can_be_differentiated():
    function = lambda rewards, following: returns.n_step_returns(
        rewards, following, jnp.asarray(TERMINATED), jnp.asarray(TRUNCATED), n=3, discount=0.9
    )
    check_grads(function, (jnp.asarray(REWARDS), jnp.asarray(NEXT_VALUES)), order=1, modes=["rev"])


# The sums carry their rounding errors along, which an optimisation could take for zero.
optimised = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
)


def test_float32_stays_float32_and_close():
    """The stated accuracy: integers exact, one rounding after ten thousand rewards, 4·10⁻⁶ with a discount.

    Rewards of one value are the hardest: each addition rounds to the same side. Without what is carried along, the
    error at 0.1 is 10⁻⁴ of the sum.
    """
    with jax.enable_x64(False):
        to_go = optimised(returns.reward_to_go)
        ones = to_go(np.ones(10_000, np.float32))
        assert ones.dtype == jnp.float32
        np.testing.assert_array_equal(ones, np.arange(10_000, 0, -1))
        rewards = np.random.default_rng(1).uniform(size=(16, 10_000)).astype(np.float32)
        got = optimised(jax.vmap(returns.reward_to_go))(rewards)
        exact = np.cumsum(rewards[:, ::-1].astype(np.float64), axis=1)[:, ::-1]
        np.testing.assert_allclose(got, exact, rtol=1.2e-7)
        never, nothing = np.zeros(10_000, bool), np.zeros(10_000, np.float32)
        gae, lambda_returns = (
            optimised(functools.partial(function, discount=1.0, lambda_=1.0))
            for function in (returns.gae, returns.lambda_returns)
        )
        for value in (0.1, 1.1):
            equal = np.full(10_000, value, np.float32)
            exact = np.float64(np.float32(value)) * np.arange(10_000, 0, -1)
            rows = (never, never)
            for sums in (
                to_go(equal),
                gae(equal, nothing, nothing, *rows),
                lambda_returns(equal, nothing, *rows),
            ):
                np.testing.assert_allclose(sums, exact, rtol=1.2e-7)
            np.testing.assert_allclose(returns.total_return(equal), exact[0], rtol=1e-6)
            for discount in (0.99, 0.9999):
                gamma = np.float64(np.float32(discount))
                exact = np.float64(np.float32(value)) * (1 - gamma ** np.arange(10_000, 0, -1)) / (1 - gamma)
                np.testing.assert_allclose(returns.reward_to_go(equal, discount=discount), exact, rtol=4e-6)
        for rule in RULES:
            single = {name: jnp.asarray(array) for name, array in STREAM.items()}
            assert call(rule, stream=single).dtype == jnp.float32
            np.testing.assert_allclose(call(rule, stream=single), call(rule), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "hyper", "message"),
    [
        ("discounted_return", {"discount": 1.01}, r"discount must be in \[0, 1\], got 1.01"),
        ("reward_to_go", {"discount": -0.5}, r"discount must be in \[0, 1\], got -0.5"),
        ("lambda_returns", {"lambda_": 1.5}, r"lambda_ must be in \[0, 1\], got 1.5"),
        ("gae", {"lambda_": float("nan")}, r"lambda_ must be in \[0, 1\], got nan"),
        ("n_step_returns", {"n": 0}, "n must be at least 1, got 0"),
        ("n_step_returns", {"n": 2.0}, "n must be an integer at least 1, got 2.0"),
    ],
)
def test_bad_hyper_parameters_are_named(rule, hyper, message):
    with pytest.raises(ValueError, match=message):
        call(rule, **hyper)


def test_shapes_and_types_are_contracts():
    with pytest.raises(AssertionError):
        call("gae", values=VALUES[:, None])
    with pytest.raises(AssertionError):
        call("lambda_returns", next_values=NEXT_VALUES[1:])
    with pytest.raises(AssertionError):
        call("n_step_returns", terminated=TERMINATED.astype(float))
    with pytest.raises(AssertionError):
        call("reward_to_go", rewards=np.arange(T))
