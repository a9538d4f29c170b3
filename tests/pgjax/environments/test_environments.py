"""Names, the conformance suite and its wrong twins, and the pictures."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pgjax import environments
from pgjax.environments import make, rendering


def test_available_names_the_native_ones_first_and_nothing_that_downloads():
    names = environments.available()
    first = ("CartPole-v1", "corridor", "four_rooms", "maze", "random_maze", "lqg", "navigation", "recall", "reverse")
    native = (*first, "spell_backward", "addition", "swimmer", "slates", "ads", "cooling")
    assert names[: len(native)] == native
    assert len(set(names)) == len(names) == len(native) + 24
    assert "Breakout-MinAtar" in names and "MNISTBandit-bsuite" not in names


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("CartPole", {}, r"no environment is called 'CartPole'; did you mean 'CartPole-v1'"),
        ("gymnax:Breakout", {}, r"is called 'gymnax:Breakout'; did you mean 'Breakout-MinAtar'"),
        ("xyzzy", {}, r"no environment is called 'xyzzy'; known are CartPole-v1, corridor, .*Breakout-MinAtar"),
        ("CartPole-v1", {"gravity": 1.0}, r"CartPole-v1 has no option 'gravity'; it has \['horizon'\]"),
        ("Catch-bsuite", {"rowz": 3}, r"'rowz'; it has \['columns', 'horizon', 'params', 'rows', 'sticky_actions'\]"),
        ("MNISTBandit-bsuite", {}, "MNISTBandit-bsuite downloads its images when it is made"),
    ],
)
def test_make_refuses_what_it_does_not_know(name, options, message):
    with pytest.raises(ValueError, match=message):
        make(name, **options)


def test_one_s_own_are_imported_as_a_record_or_as_a_function(tmp_path, monkeypatch):
    source = "from pgjax import environments\nbalance = environments.make('corridor')\nnumber = 3\n"
    source += "def make(horizon): return environments.make('corridor', horizon=horizon)\n"
    (tmp_path / "one_s_own.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    import one_s_own

    assert make("one_s_own:balance") is one_s_own.balance
    assert make("one_s_own:make", horizon=7).horizon == 7
    with pytest.raises(ValueError, match=r"one_s_own:balance has no option 'horizon'"):
        make("one_s_own:balance", horizon=7)
    for name in ("one_s_own:number", "one_s_own:absent", "nowhere:x"):
        with pytest.raises(ValueError, match=rf"{name}' must be 'package.module:name' of an Environment"):
            make(name)


def test_make_passes_options_on():
    env = make("Catch-bsuite", rows=6, columns=4, horizon=9)
    assert (env.name, env.horizon, env.observation_space.shape) == ("Catch-bsuite", 9, (6, 4))
    assert make("gymnax:CartPole-v1").name == "gymnax:CartPole-v1"


def test_cartpole_needs_neither_gymnax_nor_matplotlib_nor_pillow():
    program = (
        "import sys, jax, pgjax.environments; env = pgjax.environments.make('CartPole-v1');"
        "env.reset(jax.random.key(0), env.params);"
        "sys.exit(', '.join({'gymnax', 'gymnasium', 'matplotlib', 'PIL', 'flax'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_minatar_shows_each_channel_in_its_own_colour_and_the_player_on_top():
    obs = np.zeros((10, 10, 10))
    obs[0, np.arange(10), np.arange(10)] = 1
    obs[9, 4, [0, 3]] = 1
    picture = rendering.minatar(obs, cell=16)
    assert picture.shape == (160, 160, 3) and picture.dtype == np.uint8
    middle = picture[8::16, 8::16]
    assert len({tuple(colour) for colour in middle[0].tolist()}) == 10
    np.testing.assert_array_equal(middle[9, 4], middle[0, 0])
    assert (middle[1:9] == middle[5, 5]).all()
    with pytest.raises(ValueError, match="at most 10"):
        rendering.minatar(np.zeros((10, 10, 11)))


def test_grid_puts_walls_agent_and_goal_where_they_are():
    walls = np.zeros((3, 5), bool)
    walls[0] = True
    empty = rendering.grid(walls)
    picture = rendering.grid(walls, agent=(1, 4), goal=(2, 0), path=[(1, 2), (1, 4)])
    assert picture.shape == (72, 120, 3)
    changed = {tuple(cell) for cell in (np.argwhere((picture != empty).any(-1)) // 24).tolist()}
    assert changed == {(1, 4), (2, 0), (1, 2), (1, 3)}
    assert (picture[:24] == picture[0, 0]).all()
    for name, outside in {"agent": (3, 0), "goal": (0, 5), "path": [(0, -1)]}.items():
        with pytest.raises(ValueError, match=f"{name} must lie inside the walls"):
            rendering.grid(walls, **{name: outside})
    with pytest.raises(ValueError, match=r"walls must have shape \[h, w\]"):
        rendering.grid(walls[0])


def test_save_gif_writes_every_frame_at_the_asked_rate(tmp_path):
    frames = [rendering.cartpole([x, 0, 0, 0], width=120) for x in np.linspace(-1, 1, 5)]
    rendering.save_gif(frames, tmp_path / "cart.gif", fps=25)
    with Image.open(tmp_path / "cart.gif") as animation:
        assert (animation.n_frames, animation.size, animation.info["duration"]) == (5, (120, 48), 40)
        assert animation.info["loop"] == 0
    for wrong in ([], [np.zeros((4, 4, 3))], [*frames, frames[0][:10]]):
        with pytest.raises(ValueError, match="frames must"):
            rendering.save_gif(wrong, tmp_path / "no.gif")
    with pytest.raises(ValueError, match=r"fps must lie in \(0, 50\]"):
        rendering.save_gif(frames, tmp_path / "no.gif", fps=100)
