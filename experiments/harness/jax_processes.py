"""What the processes of a run ask of JAX. Names that JAX keeps to itself are used in this module only."""

import os
import warnings
from typing import Any, NamedTuple

from experiments.harness.directories import UsageError

METHODS = ("blocking_key_value_get", "key_value_set", "key_value_dir_get", "wait_at_barrier")
NO_CLUSTER = (
    "JAX finds no cluster here, neither of SLURM (srun) nor of Kubernetes nor of Open MPI up to version 4 (mpirun); "
)
# What this process has of a cluster that JAX does not detect → what to do.
HINTS = {
    "SLURM_JOB_ID": "within this job of SLURM, start the processes with srun",
    "OMPI_COMM_WORLD_RANK": (
        "with Open MPI 5, give HOST:PORT,$OMPI_COMM_WORLD_SIZE,$OMPI_COMM_WORLD_RANK in a shell that mpirun starts"
    ),
    "KUBERNETES_SERVICE_HOST": "within Kubernetes, install the package kubernetes, or give HOST:PORT,N,I",
}
NAMES = {"SlurmCluster": "SLURM", "OmpiCluster": "Open MPI", "K8sCluster": "Kubernetes"}


class Found(NamedTuple):
    """Where this process runs, as JAX detects it.

    Attributes:
        by: what started the processes, such as SLURM; the first of several is the one that counts.
        address: the host and the port of process 0.
        count, index: the number of processes, and the number of this one.
        devices: the numbers of the devices of this machine that this process uses; None for all of them.
    """

    by: tuple[str, ...]
    address: str
    count: int
    index: int
    devices: list[int] | None


def detected(seconds: float) -> Found:
    """What JAX detects about the processes that SLURM, Kubernetes or Open MPI has started, of which this is one.

    Args:
        seconds: how long JAX may wait until the machine of process 0 has a name.

    Raises:
        UsageError: JAX detects nothing, or what it detects is not complete.
    """
    try:
        from jax._src.clusters import ClusterEnv

        detect, types = ClusterEnv.auto_detect_unset_distributed_params, ClusterEnv._cluster_types
    except (ImportError, AttributeError) as error:
        raise _moved("clusters.ClusterEnv", "give HOST:PORT,N,I instead of auto") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a missing package, which our own sentence names
            present = _present([one for one in types if not one.opt_in_only_method])
            place = os.environ.get("JAX_COORDINATOR_ADDRESS")
            address, count, index, devices = detect(place, None, None, None, None, round(seconds))
    except (OSError, RuntimeError, ValueError, LookupError) as error:
        raise _incomplete(error) from error
    except Exception as error:
        if not type(error).__module__.startswith("kubernetes"):
            raise
        raise _incomplete(error) from error
    if not present:
        hints = [hint for name, hint in HINTS.items() if name in os.environ]
        raise UsageError(NO_CLUSTER + ("; ".join(hints) or "give HOST:PORT,N,I instead"))
    if not (isinstance(address, str) and isinstance(count, int) and isinstance(index, int) and 0 <= index < count):
        raise UsageError(f"JAX finds process {index} of {count} at {address}, which is no number from 0 to {count}-1")
    by = tuple(NAMES.get(one.__name__, one.__name__) for one in present)
    return Found(by=by, address=address, count=count, index=index, devices=None if devices is None else list(devices))


def _present(types: list[Any]) -> list[Any]:
    """The kinds of clusters that this process is in; JAX takes the first, so trouble with those after it is ignored."""
    found = []
    for one in types:
        try:
            found += [one] if one.is_env_present() else []
        except Exception:
            if not found:
                raise
    return found


def client() -> Any:
    """The client of JAX's coordination service, which carries the messages of a run after `jax.distributed` has begun.

    JAX has no public name for it.

    Raises:
        UsageError: this version of JAX has another name or another form of it.
    """
    where = "distributed.global_state.client"
    try:
        from jax._src import distributed

        found = distributed.global_state.client
    except (ImportError, AttributeError) as error:
        raise _moved(where, "use the version of jax in requirements.txt") from error
    if not all(callable(getattr(found, name, None)) for name in METHODS):
        raise _moved(where, "use the version of jax in requirements.txt")
    return found


def _incomplete(error: Exception) -> UsageError:
    reason = f"there is no variable {error}" if isinstance(error, KeyError) else str(error)
    return UsageError(f"JAX cannot find the other processes: {' '.join(reason.split()) or type(error).__name__}")


def _moved(name: str, instead: str) -> UsageError:
    import jax

    return UsageError(f"jax {jax.__version__} has no jax._src.{name}, which this option needs; {instead}")
