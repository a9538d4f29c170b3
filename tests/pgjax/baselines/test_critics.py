"""Critics, and the estimators that use them, against the exact gradient by enumeration in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import close
from enumerated import Problem
from policies import TABULAR, tabular

from pgjax import baselines, estimators, exact, returns
from pgjax.baselines import critics
from pgjax.types import Critic, Needs

pytestmark = pytest.mark.usefixtures("float64")

TABLE = np.array([[1.5, -2.0], [0.3, 2.5], [7.0, -9.0]])
DISCOUNT = 0.6
VALUES = baselines.state_values(lambda obs: obs @ jnp.asarray([2.0, -1.0, 5.0]))


def of_time(q):
    """The critic that knows the time too: q `[T, S, A]`."""
    predict = lambda state, trajectory: jnp.where(
        trajectory.alive[..., None], jnp.einsum("tbs,tsa->tba", trajectory.obs, jnp.asarray(q)), 0.0
    )
    return Critic(init=lambda key, sample: (), predict=predict, update=lambda s, trajectory, returns: (s, {}))


def given():
    return critics.action_values(lambda obs: obs @ jnp.asarray(TABLE))


def make(form, critic=None, **options):
    return estimators.make_critic_estimator(TABULAR, critic or given(), form=form, **options)


def exact_q(problem, discount=1.0):
    return np.asarray(exact.action_values(problem.mdp, jnp.asarray(problem.table), discount))


def known_part(problem, q):
    """Σ_t Σ_s d_t(s) ∇Σ_a π(a|s) q(s, a), what is added back."""
    _, pull_back = jax.vjp(lambda theta: exact.policy_probabilities(tabular, theta, problem.mdp), problem.params)
    weights = problem.visits[:, :, None] * (q if q.ndim == 3 else q[None])
    return np.asarray(pull_back(jnp.asarray(weights.sum(axis=0)))[0])


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        yield Problem()


@pytest.fixture(scope="module")
def found(problem):
    rule, power = estimators.reward_to_go(DISCOUNT), {"time_weights": "discount"}
    with jax.enable_x64(True):
        truth, discounted = of_time(exact_q(problem)), of_time(exact_q(problem, DISCOUNT))
        yield problem.each(
            {
                "all, Q": make("all_action", truth),
                "all, q": make("all_action"),
                "all, Q, γ": make("all_action", discounted, returns=rule, **power),
                "dependent": make("action_dependent"),
                "dependent, b": make("action_dependent", baseline=VALUES),
                "dependent, γ": make("action_dependent", returns=rule, **power),
                "dependent, G_1": make("action_dependent", returns=estimators.total_return(DISCOUNT)),
                "trajectory": make("trajectory_wise", rows_per_piece=7),
                "trajectory, b": make("trajectory_wise", baseline=VALUES),
                "trajectory, γ": make("trajectory_wise", returns=rule, **power),
                "trajectory, G_1": make("trajectory_wise", returns=estimators.total_return(DISCOUNT)),
                "trajectory, Q": make("trajectory_wise", truth),
                "dependent, Q": make("action_dependent", truth),
                "uncorrected": make("uncorrected"),
            },
            checked=("dependent, γ", "trajectory, b"),
        )


@pytest.mark.parametrize(
    "name", ["all, Q", "dependent", "dependent, b", "trajectory", "trajectory, b", "trajectory, Q", "dependent, Q"]
)
def test_unbiased(problem, found, name):
    close(problem.mean(found[name]), problem.gradient)


@pytest.mark.parametrize("name", ["all, Q, γ", "dependent, γ", "dependent, G_1", "trajectory, γ", "trajectory, G_1"])
def test_unbiased_for_the_discounted_objective(problem, found, name):
    close(problem.mean(found[name]), problem.gradient_at(DISCOUNT))


def test_biases_are_the_predicted_ones(problem, found):
    part = known_part(problem, TABLE)
    close(problem.mean(found["all, q"]), part)
    close(problem.mean(found["uncorrected"]), problem.gradient - part)
    assert min(np.abs(part).max(), np.abs(part - problem.gradient).max()) > 0.1
    close(known_part(problem, exact_q(problem)), problem.gradient)


def test_the_weights_of_whole_trajectories_by_hand(problem, found):
    """Σ_{k>t} begins after t: with k = t in it, ψ_t (q_t − v_t) would take g_t out again."""
    batch = problem.batch
    q = np.where(batch.alive[..., None], np.asarray(batch.obs) @ TABLE, 0.0)
    taken = np.take_along_axis(q, np.asarray(batch.actions)[..., None], -1)[..., 0]
    policy = np.asarray(jax.nn.softmax(batch.obs @ problem.params))
    surprise = taken - (policy * q).sum(axis=-1)
    to_go = lambda x: np.cumsum(x[::-1], axis=0)[::-1]
    weight = to_go(np.asarray(batch.rewards)) - taken - (to_go(surprise) - surprise)
    known = np.asarray(batch.obs)[..., None] * (policy * (q - (policy * q).sum(-1, keepdims=True)))[..., None, :]
    scores = problem.scores(problem.params)
    close(found["trajectory"], (weight[..., None, None] * scores + known).sum(axis=0))
    twin = ((weight - surprise)[..., None, None] * scores + known).sum(axis=0)
    close(problem.mean(twin), problem.gradient - known_part(problem, TABLE))


def test_all_actions_do_not_ask_which_was_taken(problem, found):
    """No variance of A_t given X_t: another action recorded changes nothing."""
    others = problem.batch._replace(actions=1 - problem.batch.actions)
    again = problem.each({"all": make("all_action"), "dependent": make("action_dependent")}, others, checked=())
    close(again["all"], found["all, q"], atol=0)
    assert np.abs(again["dependent"] - found["dependent"]).max() > 0.1


def test_nothing_but_the_states_is_left_when_all_is_deterministic():
    """Exact Q, deterministic transitions and rewards: G_t − Q_t = Σ_{k>t} γ^{k−t} (Q_k − V_k): the weights vanish."""
    problem = Problem(num_outcomes=1)
    truth, rule = of_time(exact_q(problem, DISCOUNT)), estimators.reward_to_go(DISCOUNT)
    forms = ("all_action", "trajectory_wise", "action_dependent")
    found = problem.each({form: make(form, truth, returns=rule) for form in forms}, checked=())
    close(found["trajectory_wise"], found["all_action"], atol=1e-12)
    assert np.abs(found["action_dependent"] - found["all_action"]).max() > 0.1
    variance = {form: problem.mean((x - problem.mean(x)) ** 2).sum() for form, x in found.items()}
    assert 0.01 < variance["trajectory_wise"] < 0.5 * variance["action_dependent"]


def tabular_critic(num_steps, learning_rate=1.0, **options):
    """One parameter for each state and action."""
    return critics.action_value_function(
        lambda key, obs: jnp.zeros((obs.shape[0], 2)),
        lambda params, obs: obs @ params,
        optax.sgd(learning_rate),
        num_steps=num_steps,
        **options,
    )


def test_a_fitted_critic_is_the_mean_return_of_each_action(problem):
    critic, batch = tabular_critic(1000, 2.0, decay=0.0, rows_per_piece=64), problem.batch
    to_go = jax.vmap(returns.reward_to_go, 1, 1)(batch.rewards)

    @jax.jit
    def fit(batch, to_go):
        state, metrics = critic.update(critic.init(jax.random.key(0), batch), batch, to_go)
        return critic.predict(state, batch), metrics

    q, metrics = jax.device_get(fit(batch, to_go))
    alive, states, actions = (np.asarray(x) for x in (batch.alive, batch.obs.argmax(-1), batch.actions))
    for s in range(2):
        for a in range(2):
            wanted = np.asarray(to_go)[alive & (states == s) & (actions == a)].mean()
            np.testing.assert_allclose(q[alive & (states == s)][:, a], wanted, atol=1e-8)
    # Forgetting which action was taken gives the mean over both.
    assert np.abs(q[..., 0] - q[..., 1]).max() > 0.1
    assert (q[~alive] == 0).all() and metrics["critic_value_loss"] > 0


def test_use_then_update(problem):
    estimator = make("action_dependent", tabular_critic(1), baseline=baselines.moving_average(0.9, 2.0))

    @jax.jit
    def run(params, batch):
        state = estimator.init(jax.random.key(0), batch)
        return estimator.gradient(params, state, batch)

    gradient, new, metrics = jax.device_get(run(problem.params, problem.batch))
    # The new critic says 0, so this is REINFORCE with b = 2; what is left for b after q = 0 is G_1.
    to_go = np.cumsum(np.asarray(problem.batch.rewards)[::-1], axis=0)[::-1]
    close(gradient, ((to_go - 2.0)[..., None, None] * problem.scores(problem.params)).sum(axis=0).mean(axis=0))
    close(new.baseline.estimate, 0.9 * 2.0 + 0.1 * problem.batch.rewards.sum(axis=0).mean())
    assert new.critic.num_updates == 1 and "critic_unexplained_variance" in metrics


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make("some_action"), "form.*some_action"),
        (lambda: make("all_action", baseline=VALUES), "baseline must be None"),
        (lambda: make("uncorrected", returns=estimators.lambda_return()), "total_return or reward_to_go"),
        (
            lambda: make("uncorrected", returns=estimators.total_return(), time_weights="discount"),
            "time_weights must be 'none'",
        ),
        (lambda: make("uncorrected", time_weights="sometimes"), "time_weights.*sometimes"),
        (
            lambda: make("uncorrected", baseline=VALUES._replace(needs=Needs("vanilla"))),
            "must not need scores.*vanilla",
        ),
        (lambda: tabular_critic(0), "num_steps.*0"),
        (lambda: tabular_critic(1, decay=1.5), "decay.*1.5"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
