"""What is saved comes back equal; what is wrong is named: file, key, row, expected and found."""

import dataclasses
import json
import pickle
import subprocess
import sys

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import datasets
from pgjax.datasets import DatasetError, ExpertDataset, npz
from pgjax.saving import checkpoints
from pgjax.spaces import Box, Discrete, MultiDiscrete, Slate
from pgjax.types import Trajectory

LENGTHS = [2, 1, 3]
SPACES = {"observation_space": Box(-10.0, 10.0, (2,)), "action_space": Discrete(3)}


def make(**changes) -> ExpertDataset:
    """Six rows of three episodes."""
    log_probs = np.log(np.full((6, 3), 1 / 3, np.float32))
    log_probs[0] = [0.0, -np.inf, -np.inf]
    arrays = {
        "observations": np.arange(12, dtype=np.float32).reshape(6, 2),
        "actions": np.asarray([0, 2, 1, 1, 0, 2], np.int32),
        "episode_ends": datasets.ends_of_lengths(LENGTHS),
        "rewards": np.arange(6, dtype=np.float32),
        "expert_log_probs": log_probs,
        "final_observations": np.full((3, 2), 7, np.float32),
        "terminated": np.asarray([True, False, True]),
        "metadata": {"env": "maze", "seed": 3},
    }
    return ExpertDataset(**arrays | changes)


def equal(got: ExpertDataset, wanted: ExpertDataset) -> None:
    for name in npz.ARRAYS:
        a, b = getattr(got, name), getattr(wanted, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, name)
    assert got.metadata == wanted.metadata


class TestRecord:
    def test_episodes(self):
        dataset = make()
        assert (dataset.num_rows, dataset.num_episodes) == (6, 3)
        assert dataset.episode_lengths.tolist() == LENGTHS
        assert dataset.episode_numbers.tolist() == [0, 0, 1, 2, 2, 2]
        parts = list(dataset.episodes())
        assert [part.num_rows for part in parts] == LENGTHS
        equal(datasets.concatenate(parts, metadata=dataset.metadata), dataset)
        picked = dataset.select_episodes([2, 0])
        assert picked.rewards.tolist() == [3, 4, 5, 0, 1] and picked.terminated.tolist() == [True, True]
        assert picked.episode_ends.tolist() == [False, False, True, False, True]
        equal(dataset.select_episodes(np.asarray([True, False, True])), dataset.select_episodes([0, 2]))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"episode_ends": np.zeros(0, bool)}, r"episode_ends: expected shape .N. with N at least 1"),
            ({"episode_ends": np.asarray([0, 1, 1, 0, 0, 0], bool)}, "episode_ends, row 5: expected the last row"),
            ({"episode_ends": np.ones(6)}, "episode_ends: expected bool, found float64"),
            ({"actions": np.zeros(5, int)}, "actions: expected 6 rows, found 5"),
            ({"actions": np.zeros(6, complex)}, "actions: expected integers or unsigned integers or floats"),
            ({"observations": np.full((6, 2), None)}, "observations: .* found object"),
            ({"observations": np.where(np.arange(6) == 4, np.nan, 1.0)}, "observations, row 4: expected finite"),
            ({"rewards": np.asarray([0, 1, 2, np.inf, 4, 5])}, "rewards, row 3: expected finite numbers, found inf"),
            ({"rewards": np.zeros((6, 1))}, "rewards: expected shape .6., found .6, 1."),
            ({"terminated": np.ones(2, bool)}, "terminated: expected 3 episodes, found 2"),
            ({"final_observations": np.ones((3, 4), np.float32)}, "final_observations: expected shape .3, 2."),
            ({"final_observations": np.ones((3, 2))}, "final_observations: expected float32, found float64"),
            ({"expert_log_probs": np.zeros((6, 3))}, "expert_log_probs, row 0: .* sum to 1"),
            ({"expert_log_probs": np.full((6, 1), np.nan)}, "expert_log_probs, row 0: .* found nan"),
            ({"metadata": {"space": {1, 2}}}, "metadata: expected a dict that JSON"),
            ({"metadata": {"x": (1, 2)}}, "metadata: expected a dict that JSON"),
        ],
    )
    def test_what_is_wrong_is_named(self, changes, message):
        with pytest.raises(DatasetError, match=message):
            make(**changes)

    def test_selections_and_parts_that_do_not_fit(self):
        with pytest.raises(DatasetError, match=r"episodes, row 1: expected numbers in \[0, 2\], found 3"):
            make().select_episodes([0, 3])
        with pytest.raises(DatasetError, match="at least one episode"):
            make().select_episodes([])
        with pytest.raises(DatasetError, match="datasets: expected at least one"):
            datasets.concatenate([])
        with pytest.raises(DatasetError, match=r"rewards, row 1: expected float32.* found None"):
            datasets.concatenate([make(), make(rewards=None)])
        with pytest.raises(DatasetError, match="episode_lengths, row 1: expected at least 1, found 0"):
            datasets.ends_of_lengths([2, 0])

    def test_actions_in_their_space(self):
        make().require_actions_in(Discrete(3))
        with pytest.raises(DatasetError, match=r"actions, row 1: expected actions in \[0, 1\], found 2"):
            make(expert_log_probs=None).require_actions_in(Discrete(2))
        with pytest.raises(DatasetError, match=r"expert_log_probs: expected shape \[6, 4\]"):
            make().require_actions_in(Discrete(4))
        box = make(actions=np.linspace(-1, 1.5, 6, dtype=np.float32)[:, None], expert_log_probs=None)
        with pytest.raises(DatasetError, match=r"actions, row 5: expected actions in \[-1.0, 1.0\], found 1.5"):
            box.require_actions_in(Box(-1.0, 1.0, (1,)))
        with pytest.raises(DatasetError, match="actions: expected floats, found int32"):
            make().require_actions_in(Box(-1.0, 1.0, ()))
        make().require_actions_in(Box(0, 2, (), dtype=np.int32))
        slates = make(actions=np.array([[0, 1], [2, 0], [1, 2]] * 2, np.int32), expert_log_probs=None)
        slates.require_actions_in(Slate(3, 2))
        slates.require_actions_in(MultiDiscrete((3, 3)))
        with pytest.raises(DatasetError, match=r"actions, row 1: expected actions in \[0, 2\], found 2"):
            slates.require_actions_in(MultiDiscrete((2, 3)))
        with pytest.raises(DatasetError, match=r"actions, row 2: expected different items in a slate, found \[1 1\]"):
            make(actions=np.array([[0, 1], [2, 0], [1, 1]] * 2, np.int32), expert_log_probs=None).require_actions_in(
                Slate(3, 2)
            )
        with pytest.raises(DatasetError, match=r"action space: expected one Discrete, .*, found None"):
            make().require_actions_in(None)


class TestFromTrajectory:
    def test_live_rows_episode_by_episode(self):
        lengths, horizon = np.asarray([3, 1, 4]), 4
        time, lane = np.arange(horizon)[:, None], np.arange(3)
        alive = time < lengths
        last = time == lengths - 1
        trajectory = Trajectory(
            obs=jnp.asarray(np.where(alive, 10.0 * lane + time, np.nan)[..., None]),
            actions=jnp.asarray(np.where(alive, time % 2, -1)),
            rewards=jnp.asarray(np.where(alive, 1.0 + lane, 0.0)),
            alive=jnp.asarray(alive),
            terminated=jnp.asarray(last & (lengths < horizon)),
            truncated=jnp.asarray(last & (lengths == horizon)),
            final_obs=jnp.asarray([[100.0], [101.0], [102.0]]),
        )
        got = datasets.from_trajectory(trajectory, metadata={"env": "made"})
        assert got.observations[:, 0].tolist() == [0, 1, 2, 10, 20, 21, 22, 23]
        assert got.actions.tolist() == [0, 1, 0, 0, 0, 1, 0, 1]
        assert got.rewards.tolist() == [1, 1, 1, 2, 3, 3, 3, 3]
        assert got.episode_lengths.tolist() == [3, 1, 4]
        assert got.final_observations[:, 0].tolist() == [100, 101, 102]
        assert got.terminated.tolist() == [True, True, False]
        with pytest.raises(DatasetError, match="obs: expected one array, found dict"):
            datasets.from_trajectory(trajectory._replace(obs={"x": trajectory.obs}))
        with pytest.raises(DatasetError, match="at least one live row"):
            datasets.from_trajectory(trajectory._replace(alive=jnp.zeros((4, 3), bool)))
        two = jnp.asarray(last).at[0, 0].set(True)
        with pytest.raises(DatasetError, match="next_obs, row 0"):
            datasets.from_trajectory(trajectory._replace(terminated=two))

    def test_windows_end_episodes_inside_and_at_the_edge(self):
        flags = np.zeros((4, 2), bool)
        terminated, truncated = flags.copy(), flags.copy()
        terminated[1, 0], truncated[2, 1] = True, True
        obs = jnp.arange(8.0).reshape(4, 2)
        window = Trajectory(
            obs=obs, actions=jnp.zeros((4, 2), int), rewards=obs, alive=jnp.asarray(~flags), final_obs=obs[-1],
            terminated=jnp.asarray(terminated), truncated=jnp.asarray(truncated), next_obs=obs + 100.0,
        )  # fmt: skip
        got = datasets.from_trajectory(window)
        assert got.observations.tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
        assert got.episode_lengths.tolist() == [2, 2, 3, 1]
        assert got.final_observations.tolist() == [102, 106, 105, 107]
        assert got.terminated.tolist() == [True, False, False, False]


def rewritten(path, change):
    """The saved file with `change(arrays, header)` applied and a digest that fits."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    header = json.loads(arrays.pop("header").tobytes())
    change(arrays, header)
    if header.get("sha256"):
        header["sha256"] = checkpoints.digest(arrays, header["metadata"])
    npz._write(path, arrays, header)


def put(key, value):
    return lambda path: rewritten(path, lambda arrays, header: arrays.update({key: np.asarray(value)}))


def in_header(key, value):
    return lambda path: rewritten(path, lambda arrays, header: header.update({key: value}))


def drop(key):
    return lambda path: rewritten(path, lambda arrays, header: arrays.pop(key))


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def pickled_objects(path):
    np.savez(path, header=np.asarray([{"a": 1}, None], object))


def change_behind_the_digest(path):
    with np.load(path) as stored:
        arrays = {name: stored[name].copy() for name in stored.files}
    arrays["rewards"][2] += 1
    np.savez(path, **arrays)


class TestNpz:
    @pytest.fixture
    def path(self, tmp_path):
        datasets.save_npz(tmp_path / "expert.npz", make())
        return tmp_path / "expert.npz"

    def test_round_trip(self, path):
        equal(datasets.load_npz(path, action_space=Discrete(3)), make())
        assert [file.name for file in path.parent.iterdir()] == ["expert.npz"]
        small = make(rewards=None, expert_log_probs=None, final_observations=None, terminated=None, metadata={})
        datasets.save_npz(path, small)
        equal(datasets.load_npz(path), small)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda path: path.unlink(), "file: expected an npz file, found no such file"),
            (lambda path: path.write_bytes(b""), "file: expected a whole npz file"),
            (lambda path: path.write_text("not arrays"), "file: expected a whole npz file"),
            (cut, "file: expected a whole npz file"),
            (lambda path: path.write_bytes(pickle.dumps({"actions": 1})), "file: expected a whole npz file"),
            (pickled_objects, "header: expected plain arrays .* allow_pickle=False"),
            (lambda path: np.savez(path, actions=np.zeros(3)), "header: expected the header of pgjax.ExpertDataset"),
            (change_behind_the_digest, "sha256: expected .* the data were changed"),
            (in_header("version", 2), "header: expected pgjax.ExpertDataset version 1, found .* version 2"),
            (in_header("schema", "other"), "header: expected pgjax.ExpertDataset version 1, found other"),
            (in_header("metadata", {"changed": 1}), None),
            (drop("actions"), "actions: expected an array, found keys"),
            (put("extra", 1.0), "extra: expected no other keys than"),
            (put("actions", ["a"] * 6), "actions: expected integers .* found <U1"),
            (put("actions", np.zeros(7, int)), "actions: expected 6 rows, found 7"),
            (put("actions", [0, 1, 2, 3, 0, 0]), r"actions, row 3: expected actions in \[0, 2\], found 3"),
            (put("actions", [0, 1, 2, -1, 0, 0]), r"actions, row 3: expected actions in \[0, 2\], found -1"),
            (put("rewards", [0.0, np.nan, 0, 0, 0, 0]), "rewards, row 1: expected finite numbers, found nan"),
            (put("episode_ends", [True, False, False, False, False, False]), "episode_ends, row 5"),
            (put("episode_ends", [True] * 6), "final_observations: expected 6 episodes, found 3"),
            (put("episode_ends", np.zeros(0, bool)), "episode_ends: expected shape"),
        ],
    )
    def test_damaged_files_are_refused(self, path, damage, message):
        damage(path)
        if message is None:
            assert datasets.load_npz(path).metadata == {"changed": 1}
            return
        with pytest.raises(DatasetError, match=message) as caught:
            datasets.load_npz(path, action_space=Discrete(3))
        assert str(caught.value).startswith(f"{path}: ") and caught.value.file == path

    def test_a_flipped_bit_is_refused_or_changes_nothing(self, path):
        """Parts of a zip (dates, attributes) mean nothing here; everywhere else a flip is an error, and ours."""
        whole, refused = path.read_bytes(), 0
        positions = range(0, len(whole), 7)
        for position in positions:
            path.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << position % 8)]) + whole[position + 1 :])
            try:
                equal(datasets.load_npz(path), make())
            except DatasetError:
                refused += 1
        assert refused > 0.6 * len(positions)

    def test_a_crash_leaves_the_old_file(self, path, monkeypatch):
        monkeypatch.setattr(npz.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            datasets.save_npz(path, make(metadata={}))
        equal(datasets.load_npz(path), make())
        assert list(path.parent.iterdir()) == [path]

    def test_places_where_no_file_can_be(self, tmp_path):
        for place, message in ((".", "expected a file, found a folder"), ("none/d.npz", "found no such folder")):
            with pytest.raises(DatasetError, match=f"path: .*{message}") as caught:
                datasets.save_npz(tmp_path / place, make())
            assert caught.value.file == tmp_path / place
        assert not list(tmp_path.iterdir())


def by_hand(path, *, episodes=None, metadata=None):
    """A Minari 0.5.4 data set of two episodes, written with h5py and nothing of pgjax."""
    (path / "data").mkdir(parents=True)
    box = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-np.inf] * 2, "high": [np.inf] * 2}
    described = {
        "total_episodes": 2, "total_steps": 5, "data_format": "hdf5", "dataset_id": "made/by-hand-v0",
        "observation_space": json.dumps(box), "minari_version": "0.5.4",
        "action_space": json.dumps({"type": "Discrete", "dtype": "int64", "start": 0, "n": 2}),
    }  # fmt: skip
    (path / "data" / "metadata.json").write_text(json.dumps(described | (metadata or {})))
    with h5py.File(path / "data" / "main_data.hdf5", "w", track_order=True) as file:
        for number, length in enumerate((2, 3)):
            group = file.create_group(f"episode_{number}")
            group.attrs.update({"id": number, "total_steps": length, "seed": 40 + number})
            arrays = {
                "observations": np.arange(2.0 * length + 2, dtype=np.float32).reshape(-1, 2) + 100 * number,
                "actions": np.arange(length) % 2,
                "rewards": np.arange(length, dtype=np.float64),
                "terminations": np.arange(length) == (length - 1 if number else -1),
                "truncations": np.arange(length) == (-1 if number else length - 1),
            } | (episodes or {}).get(number, {})
            for name, array in arrays.items():
                if isinstance(array, dict):
                    for part, values in array.items():
                        group.create_dataset(f"{name}/{part}", data=values)
                elif array is not None:
                    group.create_dataset(name, data=array)
    return path


class TestMinari:
    def plain(self):
        return dataclasses.replace(make(), expert_log_probs=None)

    def save(self, path, dataset=None):
        datasets.save_minari(path, dataset or self.plain(), dataset_id="maze/expert-v0", **SPACES)
        return path

    def test_a_file_written_by_hand(self, tmp_path):
        got = datasets.load_minari(by_hand(tmp_path / "hand"))
        assert got.observations.tolist() == [[0, 1], [2, 3], [100, 101], [102, 103], [104, 105]]
        assert got.final_observations.tolist() == [[4, 5], [106, 107]]
        assert got.actions.tolist() == [0, 1, 0, 1, 0] and got.actions.dtype == np.int64
        assert got.rewards.tolist() == [0, 1, 0, 1, 2] and got.rewards.dtype == np.float64
        assert got.episode_lengths.tolist() == [2, 3] and got.terminated.tolist() == [False, True]
        assert got.metadata["dataset_id"] == "made/by-hand-v0" and got.metadata["minari_version"] == "0.5.4"

    def test_round_trip(self, tmp_path):
        equal(datasets.load_minari(self.save(tmp_path / "d")), self.plain())
        assert [file.name for file in tmp_path.iterdir()] == ["d"]
        many = datasets.concatenate([self.plain()] * 4)
        equal(datasets.load_minari(self.save(tmp_path / "many", many)), many)
        with h5py.File(tmp_path / "d" / "data" / "main_data.hdf5") as file:
            assert [len(file[f"episode_{i}/observations"]) for i in range(3)] == [n + 1 for n in LENGTHS]
            assert file["episode_1/truncations"][()].tolist() == [True]
            assert dict(file["episode_2"].attrs) == {"id": 2, "total_steps": 3}
        for place, message in (("d", "path: expected a new folder"), ("none/d", "path: .*found no such folder")):
            with pytest.raises(DatasetError, match=message) as caught:
                self.save(tmp_path / place)
            assert caught.value.file == tmp_path / place and str(tmp_path / place) in str(caught.value)

    def test_parts_of_observations(self, tmp_path):
        parts = {"b": np.arange(3.0), "a": np.ones((3, 2, 1))}
        more = {"b": np.arange(4.0), "a": np.ones((4, 2, 1))}
        nothing = json.dumps({"type": "Dict", "subspaces": {}})
        path = by_hand(
            tmp_path / "d",
            episodes={0: {"observations": parts}, 1: {"observations": more}},
            metadata={"observation_space": nothing},
        )
        with pytest.raises(DatasetError, match=r"episode_0/observations: expected one array .*found a group of a, b"):
            datasets.load_minari(path)
        got = datasets.load_minari(path, flatten_observations=True)
        assert got.observations.tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 2]]
        with pytest.raises(DatasetError, match=r"observations: expected leaves of one length, found .3, 2."):
            broken = {0: {"observations": {"a": parts["a"], "b": np.arange(2.0)}}}
            path = by_hand(tmp_path / "e", episodes=broken, metadata={"observation_space": nothing})
            datasets.load_minari(path, flatten_observations=True)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"observations": np.zeros((2, 2), np.float32)}, "episode_0/observations: expected 3 rows, for 2 rewards"),
            ({"observations": np.zeros((3, 5), np.float32)}, "episode_0/observations: expected shape"),
            ({"observations": np.full((3, 2), np.nan, np.float32)}, "observations, row 0: expected finite numbers"),
            ({"observations": np.zeros((3, 2))}, "episode_1/observations: expected float64.*, as in episode_0"),
            ({"actions": np.asarray([0, 2])}, r"actions, row 1: expected actions in \[0, 1\], found 2"),
            ({"actions": np.asarray([b"a", b"b"])}, "episode_0/actions: expected plain numbers"),
            ({"actions": {"x": np.zeros(2)}}, "episode_0/actions: expected one array, found a group of x"),
            ({"rewards": np.zeros(3)}, "episode_0/observations: expected 4 rows"),
            ({"rewards": np.zeros(0)}, "episode_0/rewards: expected at least one step"),
            ({"rewards": None}, "episode_0/rewards: expected a data set, found keys"),
            ({"terminations": np.asarray([True, False])}, "episode_0/terminations, row 0: expected an end in the last"),
            ({"truncations": np.asarray([0, 1])}, "episode_0/truncations: expected bool .T., found int64"),
        ],
    )
    def test_episodes_that_are_wrong(self, tmp_path, changes, message):
        path = by_hand(tmp_path / "d", episodes={0: changes})
        with pytest.raises(DatasetError, match=message) as caught:
            datasets.load_minari(path)
        assert caught.value.file == path

    @pytest.mark.parametrize(
        ("metadata", "message"),
        [
            ({"minari_version": "0.9.0"}, "minari_version: expected one of .* found 0.9.0"),
            ({"data_format": "arrow"}, "data_format: expected hdf5, found arrow"),
            ({"total_episodes": 3}, "episodes: expected episode_0 … of 3 episodes, at least 1, found 2 groups"),
            ({"total_episodes": 0}, "episodes: expected"),
            ({"total_steps": 9}, "total_steps: expected 9, found 5"),
            ({"action_space": "{"}, "action_space: expected a space in JSON"),
            ({"action_space": json.dumps({"type": "Discrete", "n": 2, "start": 1})}, "action_space: .* found Discrete"),
        ],
    )
    def test_metadata_that_are_wrong(self, tmp_path, metadata, message):
        with pytest.raises(DatasetError, match=message):
            datasets.load_minari(by_hand(tmp_path / "d", metadata=metadata))

    def test_damaged_files_are_refused(self, tmp_path):
        path = self.save(tmp_path / "d")
        file = path / "data" / "main_data.hdf5"
        whole = file.read_bytes()
        place = whole.index(make().rewards[3:].tobytes())
        flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        for content in (b"", b"not hdf5 at all", whole[: len(whole) // 2], whole[:-1], flipped):
            file.write_bytes(content)
            with pytest.raises(DatasetError, match="expected a whole HDF5 file"):
                datasets.load_minari(path)
        file.unlink()
        with pytest.raises(DatasetError, match="found no such file"):
            datasets.load_minari(path)

    def test_what_the_layout_cannot_hold(self, tmp_path):
        with pytest.raises(DatasetError, match="expert_log_probs: expected None"):
            self.save(tmp_path / "d", make())
        with pytest.raises(DatasetError, match="rewards: expected an array"):
            self.save(tmp_path / "d", dataclasses.replace(self.plain(), rewards=None))
        with pytest.raises(DatasetError, match=r"observations: expected shape \['N', 7\] of their space"):
            space = Box(low=-np.inf, high=np.inf, shape=(7,), dtype=np.float32)
            spaces = SPACES | {"observation_space": space}
            datasets.save_minari(tmp_path / "d", self.plain(), dataset_id="maze/expert-v0", **spaces)
        with pytest.raises(DatasetError, match="dataset_id: expected"):
            datasets.save_minari(tmp_path / "d", self.plain(), dataset_id="no version", **SPACES)
        assert not list(tmp_path.iterdir())

    def test_minari_reads_it(self, tmp_path):
        minari = pytest.importorskip("minari")
        read = minari.MinariDataset(self.save(tmp_path / "d") / "data")
        assert (read.total_episodes, read.total_steps, read.id) == (3, 6, "maze/expert-v0")
        for episode, wanted in zip(read.iterate_episodes(), self.plain().episodes()):
            np.testing.assert_array_equal(episode.observations[:-1], wanted.observations)
            np.testing.assert_array_equal(episode.observations[-1:], wanted.final_observations)
            np.testing.assert_array_equal(episode.actions, wanted.actions)
            assert episode.terminations[-1] == wanted.terminated[0] != episode.truncations[-1]


def test_h5py_is_imported_only_when_it_is_needed():
    code = "import sys, pgjax; pgjax.datasets, pgjax.training; assert 'h5py' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
