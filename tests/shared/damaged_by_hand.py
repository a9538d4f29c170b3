"""The damages made by hand of each kind of files; none of these files may be loaded."""

import damaged_data as data
import damaged_tensors as tensors
from damaged_tensors import Change

DAMAGES: dict[str, dict[str, Change]] = {
    "checkpoint": tensors.BYTES | tensors.HEADS | tensors.CHECKPOINT,
    "policy": tensors.BYTES | tensors.POLICY,
    "npz": data.NPZ,
    "HDF5": data.HDF5,
    "HDF5 metadata": data.METADATA,
    "foreign HDF5": data.HDF5,
    "foreign HDF5 metadata": data.METADATA,
    "JSON lines": data.LABELS,
    "JSON array": data.ARRAYS,
    "pairs": data.PAIRS,
    "documents": data.DOCUMENTS,
    "text": data.TEXTS,
    "GGUF": tensors.BYTES | tensors.GGUF,
    "safetensors": tensors.BYTES | tensors.HEADS | tensors.WEIGHTS,
    "foreign safetensors": tensors.BYTES | tensors.HEADS | tensors.FOREIGN_WEIGHTS,
    "model's config.json": tensors.CONFIGS,
}
