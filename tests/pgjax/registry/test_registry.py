"""The registry: names, settings, needs, a user's own estimators, and what every entry states of itself."""

import dataclasses
import re
import sys
import textwrap

import jax
import jax.numpy as jnp
import pytest

from pgjax import baselines, distributions, registry
from pgjax.types import Policy

POLICY = Policy(
    init=lambda key, obs: jnp.zeros((2, 2)),
    apply=lambda params, obs: obs @ params,
    distribution=distributions.categorical,
)
PARTS = registry.Parts(policy=POLICY, value=baselines.state_values(jnp.sum))


def test_every_entry_is_named_as_it_is_typed_and_states_its_source():
    labels = [entry.label for entry in registry.ENTRIES.values()]
    assert len(set(labels)) == len(labels) >= 30
    for name, entry in registry.ENTRIES.items():
        assert entry.name == name and re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert entry.source and set(entry.needs) <= set(registry.NEEDS)
        assert entry.factor is None or entry.bias
        assert not entry.compares or entry.joint


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        ("loo", "rloo or gpomdp_leave_one_out"),
        ("leave_one_out", "rloo or gpomdp_leave_one_out"),
        ("RLOO", "rloo"),
        ("dr-grpo", "dr_grpo"),
        ("gpomdp_valeu", "gpomdp_value"),
        ("vpg", "gpomdp_value"),
        ("value", "gpomdp_value"),
        ("a2c", "actor_critic"),
    ],
)
def test_a_close_name_is_suggested(typed, suggested):
    with pytest.raises(ValueError, match=f"no estimator is called '{typed}'; did you mean {suggested}"):
        registry.find(typed)


def test_a_name_that_is_close_to_nothing_lists_the_known():
    known = r"no estimator is called 'xyzzy'; the known names are reinforce, .*natural_exact_value, and"
    with pytest.raises(ValueError, match=known):
        registry.find("xyzzy")


def test_every_alias_leads_to_entries():
    for word, names in registry.finding.ALIASES.items():
        assert word not in registry.ENTRIES and set(names) <= set(registry.ENTRIES)


def test_settings_that_contradict_an_estimator_are_refused():
    entry = registry.find("rloo")
    assert entry.resolve(registry.Settings(discount=0.9)).discount == 0.9
    with pytest.raises(ValueError, match=r"lambda_ 0.5 must be left out with the estimator rloo.*discount"):
        entry.resolve(registry.Settings(lambda_=0.5))
    with pytest.raises(ValueError, match="standardise none must be group_population or group_sample"):
        registry.find("grpo").resolve(registry.Settings(standardise="none"))


def test_a_missing_part_is_named():
    with pytest.raises(ValueError, match=r"the estimator all_action needs a predicted q\(Xₜ, a\)"):
        registry.make("all_action", PARTS)
    with pytest.raises(ValueError, match="gpomdp_exact_value needs exact values"):
        registry.make("gpomdp_exact_value", PARTS)


def test_groups_reach_the_estimators_that_compare():
    in_threes = PARTS._replace(group_size=3)
    compared = [name for name, entry in registry.ENTRIES.items() if entry.compares]
    assert {"rloo", "grpo", "dr_grpo", "gpomdp_leave_one_out"} < set(compared)
    for name in compared:
        assert registry.make(name, PARTS).needs.group_size is None
        assert registry.make(name, in_threes).needs.group_size == 3
    assert registry.make("gpomdp_value", in_threes).needs.group_size is None


def test_windows_and_greedy_episodes_are_stated_as_the_estimators_have_them():
    for name, entry in registry.ENTRIES.items():
        if entry.lacking(PARTS) is None:
            estimator = registry.make(name, PARTS)
            assert estimator.fits_windows == entry.windows, name
            assert estimator.needs.greedy_returns == ("greedy" in entry.needs), name


OWN = """
    import jax.numpy as jnp
    from pgjax import baselines, estimators

    def estimator(policy, decay=0.5):
        return estimators.make_estimator(policy, baseline=baselines.moving_average(decay))

    def baseline():
        return baselines.constant(1.0)

    def number():
        return 3

    def fails(policy):
        return estimators.make_estimator(policy, over_time="always")

    three = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_registry.py").write_text(textwrap.dedent(OWN))
    (tmp_path / "own_broken.py").write_text("import jax\ndef f(:\n")
    (tmp_path / "own_raising.py").write_text("x = 1\ny = unknown\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_registry", None)


def test_ones_own_function_is_an_entry(own):
    for name in ("own_registry:estimator", "own_registry:baseline"):
        entry = registry.find(name)
        assert entry.is_own and entry.bias == registry.NOT_STATED
        assert registry.make(name, PARTS).needs == registry.make("gpomdp", PARTS).needs


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("json:dumps", "json:dumps must be a function of the policy that returns an Estimator.*TypeError"),
        ("json:nothing", "json:nothing must be module:function that can be imported, but AttributeError"),
        ("nowhere:f", "nowhere:f must be module:function that can be imported, but ModuleNotFoundError"),
        (":f", ":f must be module:function"),
        ("own_broken:f", r"own_broken:f.*SyntaxError: .*\(own_broken.py, line 2\)"),
        ("own_raising:f", r"own_raising:f.*NameError: .*\(own_raising.py, line 2\)"),
        ("own_registry:three", "own_registry:three must be a function, got int"),
        ("own_registry:number", "own_registry:number must be .* returned int"),
        ("own_registry:fails", r"own_registry:fails must be .*over_time must be one of .*\(own_registry.py, line 15\)"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(own, path, words):
    with pytest.raises(ValueError, match=words) as caught:
        registry.make(path, PARTS)
    assert "\n" not in str(caught.value)


def test_an_entry_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        registry.ENTRIES["rloo"].bias = "none"


def test_the_states_of_a_tabular_problem_are_numbered_by_what_is_seen():
    from pgjax import exact

    mdp = exact.make_bandit(jnp.array([1.0, 0.0]))
    states = registry.states_of(mdp)
    assert [int(states.index_of(jnp.asarray(obs))) for obs in mdp.observations] == list(range(states.count))
    assert jax.eval_shape(states.index_of, mdp.observations[0]).shape == ()
