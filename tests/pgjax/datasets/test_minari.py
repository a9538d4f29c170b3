"""Minari data sets: read as another program wrote them, written as Minari reads them."""

import dataclasses
import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from expert_datasets import LENGTHS, equal, make

from pgjax import datasets
from pgjax.datasets import DatasetError
from pgjax.spaces import Box, Discrete

SPACES = {"observation_space": Box(-10.0, 10.0, (2,)), "action_space": Discrete(3)}


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


class TestMinariFromStrangers:
    """What a file points to or announces is not followed and takes no memory; `tests/damaged_files.py` has more."""

    def test_a_foreign_byte_order_comes_back_as_numbers(self, tmp_path):
        data = dataclasses.replace(make(), expert_log_probs=None, rewards=make().rewards.astype(">f4"))
        path = TestMinari().save(tmp_path / "d", data)
        assert datasets.load_minari(path).rewards.tolist() == make().rewards.tolist()

    def test_a_digest_that_is_gone_from_one_file_is_noticed(self, tmp_path):
        path = TestMinari().save(tmp_path / "d")
        file = path / "data" / "metadata.json"
        described = json.loads(file.read_text())
        del described["pgjax_sha256"]
        file.write_text(json.dumps(described | {"pgjax": {"changed": 1}}))
        with pytest.raises(DatasetError, match="pgjax_sha256: expected None"):
            datasets.load_minari(path)

    def test_observations_outside_their_space_are_refused_unless_asked(self, tmp_path):
        box = json.dumps({"type": "Box", "dtype": "float32", "shape": [2], "low": [0.0, 0.0], "high": [50.0, 50.0]})
        path = by_hand(tmp_path / "d", metadata={"observation_space": box})
        with pytest.raises(DatasetError, match=r"observations, row 2: expected numbers in \[0.0, 50.0\]"):
            datasets.load_minari(path)
        assert datasets.load_minari(path, check_observations=False).num_episodes == 2

    def test_the_limit_is_the_callers(self, tmp_path):
        with pytest.raises(DatasetError, match="arrays of at most 100 bytes"):
            datasets.load_minari(by_hand(tmp_path / "d"), most_bytes=100)
