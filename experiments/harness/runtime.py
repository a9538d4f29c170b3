"""The devices on which an experiment runs, and the folder in which compiled programs are kept."""

import contextlib
import os
import pathlib
import warnings

CACHE_BYTES = 2**30
HARMLESS = "Error (reading|writing) persistent compilation cache"  # a warning of JAX
MOST_DEVICES = 1024
MOST_SHARES = 8  # devices that can share the episodes of one run


def usable_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start(devices: int | None, cache: bool, debug_nans: bool = False, processes: int = 1) -> None:
    """Set the number of devices, the compilation cache and the search for NaN. Call this before JAX starts.

    Args:
        processes: the number of processes that share the run, each with so many devices.

    Raises:
        ValueError: the number of devices is out of range.
    """
    if devices is not None and not 1 <= devices <= MOST_DEVICES:
        raise ValueError(f"--devices {devices}: must be from 1 to {MOST_DEVICES}")
    use_devices(devices, processes)
    import jax

    if debug_nans:
        jax.config.update("jax_debug_nans", True)
    if cache:
        use_cache()
    else:
        jax.config.update("jax_enable_compilation_cache", False)


def use_devices(count: int | None, processes: int = 1) -> None:
    """Let JAX use `count` devices; None means every accelerator, or one CPU device for each core.

    Several processes then use fewer CPU devices if they would have more than `MOST_SHARES` together, because no more
    devices can share the episodes of a run in a fixed order of sums.

    XLA's threads do not speed up products as small as those of a policy, while one device for each core keeps every
    core at work. None changes nothing if the user has set the number of CPU devices of JAX, or if JAX runs already.

    Raises:
        ValueError: JAX runs already with another number of devices.
    """
    import jax

    theirs = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if count is None and (theirs or jax.config.jax_num_cpu_devices >= 0):
        return
    try:
        jax.config.update("jax_num_cpu_devices", count or _cpu_devices(processes))
    except RuntimeError as error:
        if count is not None:
            raise ValueError(f"--devices {count}: JAX runs already with {jax.device_count()} devices") from error
    if count is not None:
        for platform in ("cuda", "rocm"):
            jax.config.update(f"jax_{platform}_visible_devices", ",".join(map(str, range(count))))


def _cpu_devices(processes: int) -> int:
    if processes == 1:
        return usable_cores()
    return 1 << min(usable_cores(), max(1, MOST_SHARES // processes)).bit_length() - 1


def cache_directory() -> pathlib.Path | None:
    """The folder of compiled programs, `pgjax/jax` in the user's cache folder; None if there is no such folder."""
    with contextlib.suppress(RuntimeError):  # no home directory
        base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        if pathlib.Path(base).is_absolute():
            return pathlib.Path(base) / "pgjax" / "jax"
    return None


def cache_place() -> str:
    """The directory that `use_cache` would use, for --help, or "none"."""
    return os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(cache_directory() or "none")


def use_cache(most_bytes: int = CACHE_BYTES) -> pathlib.Path | None:
    """Lets JAX keep every program that it compiles on disk, and load it instead of compiling it again.

    JAX names a file by a hash of the program, its own version, XLA's flags, the number of devices and the processor's
    features, so that machines and versions can share the directory. The user's JAX_COMPILATION_CACHE_DIR comes before
    ours, and is left as large as it is; from ours the files that were used longest ago are removed until `most_bytes`
    are left. A directory that cannot be written does no harm: nothing is kept then.

    Returns:
        The directory, or None if there is none.
    """
    import jax

    given = jax.config.jax_compilation_cache_dir
    directory = pathlib.Path(given) if given else cache_directory()
    if directory is None or not (given or _is_writable(directory)):
        return None
    if not given:
        _prune(directory, most_bytes)
        jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # A file that is not whole (another process is writing it, or died while it did; the disk was full): that program is
    # compiled again each time, as without a cache, until the file is the one that was used longest ago.
    warnings.filterwarnings("ignore", message=HARMLESS)
    return directory


def _is_writable(directory: pathlib.Path) -> bool:
    with contextlib.suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
    return directory.is_dir() and os.access(directory, os.W_OK | os.X_OK)


def _prune(directory: pathlib.Path, most_bytes: int) -> None:
    """Removes the files that were used longest ago, so that the rest has at most `most_bytes`.

    Other processes may read, write and prune at the same time: a file that is gone is not missed.
    """
    found = []
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            status = path.stat()
            if path.is_file():
                found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= most_bytes:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
