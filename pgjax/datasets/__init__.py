"""Data sets of an expert's episodes, which are built from trajectories, checked, written to files and read back.

    Trajectory ─► ExpertDataset ─► save_npz / save_minari ─► load_npz / load_minari ─► training.fit

If a file or an array is wrong, a `DatasetError` names the file, key and row, what was expected and what was found. No
function unpickles. Only the two Minari functions import h5py. `datasets.text` holds text for next-token learning.
"""

from pgjax.datasets.minari import load_minari, save_minari
from pgjax.datasets.npz import load_npz, save_npz
from pgjax.datasets.record import DatasetError, ExpertDataset, concatenate, ends_of_lengths, from_trajectory

__all__ = [
    "DatasetError",
    "ExpertDataset",
    "concatenate",
    "ends_of_lengths",
    "from_trajectory",
    "load_minari",
    "load_npz",
    "save_minari",
    "save_npz",
]
