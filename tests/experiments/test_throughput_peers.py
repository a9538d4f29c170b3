"""Peers take turns with pgjax, say what they took, and are judged by their aims; one that cannot run says why."""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import throughput
from experiments.harness import runner
from experiments.throughput import beside, peer_list, peer_tables, solve
from pgjax import environments

PEER = """
import sys
import numpy
sys.path.insert(0, {folder!r})
import serving
given = serving.options()
if given["work"] == "solve":
    scores = iter(numpy.array([100.0, 500.0]))
    serving.solve(lambda: 10, lambda: next(scores), {{"numpy": "2"}}, given["solved"], given["limit"])
else:
    print("a library prints what it likes")
    serving.serve(lambda: 10, {{"numpy": "2"}})
"""


@pytest.fixture
def pretended(monkeypatch, tmp_path):
    """Writes a peer that speaks as the real ones do, and returns its record."""

    spoken = PEER.format(folder=str(beside.FOLDER))

    def write(source=spoken):
        (tmp_path / "pretended.py").write_text(source)
        monkeypatch.setattr(beside, "FOLDER", tmp_path)
        return peer_list.Peer(name="pretended", setting="as it is", script="pretended", given={})

    return write


def test_a_peer_takes_turns_with_pgjax(pretended):
    turns = []
    ours = lambda seconds: turns.append(seconds) or 1e3
    found = beside.pairs(pathlib.Path(sys.executable), pretended(), ours, 0.01, 3, 0)
    assert found.failure is None and found.versions == {"numpy": "2"}
    assert turns == [0.01] * 3 and len(found.theirs) == 3 and min(found.theirs) > 0
    assert found.ratios == [1e3 / theirs for theirs in found.theirs]


def test_a_peer_that_solves_says_what_it_took(pretended):
    found = beside.solve(pathlib.Path(sys.executable), pretended(), (4,), 0, solved=475.0, limit=5.0)
    assert found["solved"] and (found["steps"], found["evaluations"], found["score"]) == (20, 2, 500.0)
    assert found["seconds"] > found["learning_seconds"] + found["evaluation_seconds"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [("import package_that_nobody_has", "No module named 'package_that_nobody_has'"), ("", "exit code 0")],
)
def test_a_peer_that_cannot_run_is_not_measured(pretended, source, reason):
    found = beside.pairs(pathlib.Path(sys.executable), pretended(source), lambda seconds: 1.0, 0.0, 1, 0)
    assert reason in found.failure and found.theirs == []


def test_peers_are_recorded_with_their_aims_or_the_reason(tmp_path):
    listed = [peer for peer in peer_list.measured(1024, 32) if peer.workload == "CartPole-v1"]
    pairs = [beside.Pairs(ours=[4.0, 4.2], theirs=[1.0, 1.2 if peer.one_epoch else 1.0]) for peer in listed]
    pairs[-1] = beside.Pairs(ours=[], theirs=[], failure="no module")
    with runner.Recorder("throughput", throughput.TINY, output_dir=tmp_path) as recorder:
        peer_tables.record_peers(list(zip(listed, pairs)), recorder)
    rows = json.loads((recorder.directory / "summary.json").read_text())["rows"]
    verdicts = {row["variant"]: row["verdict"] for row in rows if row["quantity"] == "(e) pgjax / peer"}
    judged = {name: verdict for name, verdict in verdicts.items() if "aim" in verdict}
    assert sum("1024 environments" in name for name in judged) == 3 and len(judged) == 4
    assert all(verdict.startswith("agrees") == ("A2C" not in name) for name, verdict in judged.items())
    assert verdicts[f"CartPole-v1: {listed[-1].label}"] == "not measured: no module"
    assert sum(row["quantity"] == "(e) pgjax / its best" for row in rows) == 3


def child(solved=True, seconds=1.0):
    times = {"seconds": seconds, "learning_seconds": 0.2, "compile_seconds": 0.5, "evaluation_seconds": 0.25}
    return times | {"solved": solved, "updates": 9, "steps": 100}


def test_pgjax_is_judged_against_every_peer_without_the_evaluations(tmp_path):
    runs = {solve.EMPTY: [child(seconds=4.0)] * 2, solve.QUICK: [child(seconds=2.0)] * 2, solve.WARM: [child()] * 2}
    runs |= {
        "slow": [child(seconds=9.0)] * 2,
        f"{peer_list.REJAX}, slow": [child(seconds=9.0)] * 2,
        "quick": [child(seconds=2.1), child(seconds=1.9)],
        "none": [{"failure": "no"}],
    }
    with runner.Recorder("throughput", throughput.TINY, output_dir=tmp_path) as recorder:
        peer_tables.record_solving(runs, recorder)
    rows = json.loads((recorder.directory / "summary.json").read_text())["rows"]
    found = {row["variant"]: (row["ours"], row["verdict"].partition(":")[0]) for row in rows}
    assert found["slow"] == (pytest.approx(8.75 / 1.75), "agrees")
    assert found[f"{peer_list.REJAX}, slow"] == (pytest.approx(8.75 / 3.75), "agrees"), "with the same flags"
    assert found["quick"][1] == "not as expected" and "none" not in found


def test_the_cartpole_of_the_peers_is_that_of_pgjax(monkeypatch):
    monkeypatch.syspath_prepend(str(beside.FOLDER))
    import cartpole

    environment = environments.make("CartPole-v1")
    step = jax.jit(jax.vmap(lambda s, a: environment.step(jax.random.key(0), s, a, environment.params)))
    state, obs = jax.vmap(environment.reset, (0, None))(jax.random.split(jax.random.key(1), 5), environment.params)
    actions = jnp.array([0, 1, 1, 0, 1])
    _, after = step(state, actions)
    np.testing.assert_allclose(cartpole.step(np.asarray(obs, float), np.asarray(actions)), after.obs, atol=1e-6)
    assert cartpole.mean_return(lambda obs: np.zeros(len(obs)), 0) < 12
    balanced = lambda obs: (obs @ np.array([0.0, 0.2, 1.0, 0.4]) > 0).astype(int)
    assert cartpole.mean_return(balanced, 0) > 450
