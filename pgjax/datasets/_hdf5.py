"""Arrays of an HDF5 file that nobody checked: each is looked at before it is read, and nothing outside is followed.

HDF5 can point to other files (external and soft links, external raw storage, virtual data sets), announce numbers that
it does not hold (chunks that were never written), and load plug-ins for unknown filters. All of this is refused.
"""

import math
import zlib
from typing import Any

import numpy as np

from pgjax._limits import FREE_BYTES, MOST_AXES
from pgjax.datasets.record import DatasetError

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
# The orders of filters of which each byte can be checked; any other filter may be a plug-in.
_FILTERS = tuple(
    (*shuffled, *packed, *summed)
    for shuffled in ((), (_SHUFFLE,))
    for packed in ((), (_DEFLATE,))
    for summed in ((), (_FLETCHER32,))
)


def child(group: Any, name: str, key: str) -> Any:
    """The group or the data set of a name that `group` holds itself.

    Raises:
        DatasetError: if there is none, or if it is a link that leads elsewhere.
    """
    import h5py

    if (link := group.get(name, getlink=True)) is None:
        raise DatasetError(key, expected="an entry", found=f"keys {sorted(group)[:20]}")
    if not isinstance(link, h5py.HardLink):
        raise DatasetError(key, expected="data in the file itself", found="a link to another place or file")
    found = group[name]
    if not isinstance(found, h5py.Group | h5py.Dataset):
        raise DatasetError(key, expected="a group or a data set", found=type(found).__name__)
    return found


def is_group(stored: Any) -> bool:
    """Whether this is a group of further entries."""
    return hasattr(stored, "keys")


def require_plain(stored: Any, key: str) -> int:
    """Require a data set of plain numbers whose bytes all stand in the file; return its bytes in memory.

    Raises:
        DatasetError: if its type is not plain, its storage is elsewhere, not whole or of unknown filters, or a chunk is
            too large.
    """
    dtype, shape = stored.dtype, stored.shape
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise DatasetError(key, expected="plain numbers", found=f"{dtype} (text, or encoded images)")
    if shape is None or len(shape) > MOST_AXES:
        raise DatasetError(key, expected=f"an array of at most {MOST_AXES} axes", found=shape)
    import h5py

    created = stored.id.get_create_plist()
    layout, size = created.get_layout(), math.prod(shape) * dtype.itemsize
    if layout == h5py.h5d.VIRTUAL or (layout == h5py.h5d.CONTIGUOUS and created.get_external_count()):
        raise DatasetError(key, expected="numbers in the file itself", found="storage in other files")
    if layout != h5py.h5d.CHUNKED:
        if (found := stored.id.get_storage_size()) != size:
            raise DatasetError(key, expected=f"{size} stored bytes", found=found)
        return size
    _require_chunks(stored, key, created)
    return size


def _require_chunks(stored: Any, key: str, created: Any) -> None:
    chunk_bytes = math.prod(stored.chunks) * stored.dtype.itemsize
    if chunk_bytes > FREE_BYTES:
        raise DatasetError(key, expected=f"chunks of at most {FREE_BYTES} bytes", found=chunk_bytes)
    filters = tuple(created.get_filter(number)[0] for number in range(created.get_nfilters()))
    if filters not in _FILTERS:
        known = "shuffle, gzip and Fletcher's checksum, in this order"
        raise DatasetError(key, expected=f"no filters but {known}", found=f"the filters {list(filters)}")
    wanted = math.prod(-(-axis // chunk) for axis, chunk in zip(stored.shape, stored.chunks, strict=True))
    if (found := stored.id.get_num_chunks()) != wanted:
        raise DatasetError(key, expected=f"{wanted} chunks in the file", found=found)
    chunks: list[tuple[Any, int, int]] = []
    stored.id.chunk_iter(lambda info: chunks.append((info.chunk_offset, info.filter_mask, info.size)))
    for offset, mask, size in chunks:
        packed = _DEFLATE in filters and not mask & (1 << filters.index(_DEFLATE))
        summed = 4 * (_FLETCHER32 in filters and not mask & (1 << filters.index(_FLETCHER32)))
        if not packed and size != chunk_bytes + summed:
            raise DatasetError(key, expected=f"chunks of {chunk_bytes + summed} bytes", found=size)
        if packed:
            # The library of HDF5 would expand a chunk without a limit.
            if size > 2 * chunk_bytes + 1024:
                raise DatasetError(key, expected=f"compressed chunks of about {chunk_bytes} bytes", found=size)
            expanded = zlib.decompressobj().decompress(stored.id.read_direct_chunk(offset)[1], chunk_bytes + 1)
            if len(expanded) != chunk_bytes:
                found = "more" if len(expanded) > chunk_bytes else len(expanded)
                raise DatasetError(key, expected=f"chunks of {chunk_bytes} bytes", found=found)


def require_attribute(group: Any, key: str, name: str, expected: int) -> None:
    """Require that an attribute, if the group has it, is this integer.

    Raises:
        DatasetError: if it is another value.
    """
    if name not in group.attrs:
        return
    attribute = group.attrs.get_id(name)
    if attribute.dtype.kind not in "iu" or attribute.shape not in ((), (1,)):
        found = f"{attribute.dtype} of shape {attribute.shape}"
        raise DatasetError(f"{key} attribute {name}", expected=expected, found=found)
    if (found := int(np.ravel(group.attrs[name])[0])) != expected:
        raise DatasetError(f"{key} attribute {name}", expected=expected, found=found)


def text_attribute(group: Any, name: str) -> str | None:
    """The text of an attribute of at most 64 bytes, or None if the group has no such attribute."""
    if name not in group.attrs:
        return None
    attribute = group.attrs.get_id(name)
    if attribute.dtype.kind != "S" or attribute.dtype.itemsize > 64 or attribute.shape != ():
        raise DatasetError(f"attribute {name}", expected="at most 64 bytes of text", found=attribute.dtype)
    return bytes(group.attrs[name]).decode(errors="replace")


def read(stored: Any) -> np.ndarray:
    """The numbers of a data set that `require_plain` has checked, in the byte order of this machine."""
    found = np.asarray(stored[()])
    return found.astype(found.dtype.newbyteorder("="), copy=False)
