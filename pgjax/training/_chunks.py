"""How many updates are made between two visits of the host, and where the metrics of all chunks are kept."""

import numpy as np

from pgjax._checks import require_integer

# The largest chunk that is sized by time. The numbers of all its updates for all runs are in memory at once.
_MOST_UPDATES, _MOST_NUMBERS = 2**14, 2**17
_GROWTH = 8  # from one chunk to the next, because the first ones are short and tell the time only roughly


class Pace:
    """The sizes of chunks: `most` updates each, or as many updates as take about `seconds`, starting with one.

    One compiled program serves all sizes up to `most`, so a size that follows the clock changes no number. Processes
    that train together (`together`) follow the clock of process 0, because all of them have to make the same chunks.
    """

    def __init__(
        self, num_updates: int, num_runs: int, chunk: int | None, seconds: float | None, together: bool = False
    ):
        if seconds is not None and not seconds > 0:
            raise ValueError(f"chunk_seconds must be None or above 0, got {seconds}")
        if chunk is not None:
            require_integer("chunk", chunk, 1, None)
        if seconds is not None:
            # This must not depend on the number of updates: a resumed run then compiles the same program.
            most = min(_MOST_UPDATES, max(1, _MOST_NUMBERS // num_runs))
            self.most = most if chunk is None else min(chunk, most)
        else:
            self.most = max(1, num_updates // 20) if chunk is None else min(chunk, num_updates)
        self._together = together
        self._seconds, self._next = seconds, self.most if seconds is None else 1

    def size(self, left: int) -> int:
        """The number of updates of the next chunk, at most `left`."""
        return min(self._next, left)

    def took(self, count: int, seconds: float) -> None:
        """Say that a chunk of `count` updates took so many seconds."""
        if self._seconds is not None:
            if self._together:
                from jax.experimental import multihost_utils  # imported here, because few programs need it

                seconds = float(multihost_utils.broadcast_one_to_all(np.float32(seconds)))
            fitting = self._seconds * count / max(seconds, 1e-9)
            self._next = int(min(max(fitting, 1), _GROWTH * count, self.most))


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The metrics `[S, n]` of chunks as one array `[S, U]` for each name; empty if none were kept."""
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]} if parts else {}
