"""How much memory a training will need, before anything is compiled."""

from collections.abc import Sequence
from typing import NamedTuple, get_args

import jax

from pgjax._checks import require_integer, require_kind, require_one_of
from pgjax._doors import readable
from pgjax._platform import traced_for
from pgjax.training._peak import bytes_of, peak_bytes
from pgjax.training.sharding import Device, RunMapping, SharedEpisodes, choose_devices, choose_layout, choose_mapping
from pgjax.training.trainer import Trainer

__all__ = ["MemoryEstimate", "bytes_of", "estimate_memory", "peak_bytes"]

MARGIN = 1.25


class MemoryEstimate(NamedTuple):
    """Bytes on all devices together, and the number of devices that share them.

    Attributes:
        states: the bytes of the `TrainState` of all runs: θ, the optimiser, the baseline and the environments.
        update: the bytes that the updates need beside the states: trajectories, gradients and their pieces.
        num_devices: the number of devices that work.
    """

    states: int
    update: int
    num_devices: int

    @property
    def total(self) -> int:
        """All bytes on all devices."""
        return self.states + self.update


@readable
def estimate_memory(
    trainer: Trainer,
    num_runs: int = 1,
    *,
    mapping: RunMapping = "auto",
    devices: Sequence[Device] | int | None = None,
    deterministic: bool = True,
) -> MemoryEstimate:
    """An estimate of the memory that `train` needs for S runs of one trainer; the functions are traced only.

    The estimate goes through the operations of one update in their order and adds up the arrays that are alive, with
    `MARGIN` for what the compiler keeps longer or copies. Python, JAX and the compiled program come on top, with 0.5 to
    0.9 gigabytes in measured runs.

    Args:
        trainer: the trainer of one run.
        num_runs: S.
        mapping: how a device goes through its runs, as in `train`.
        devices, deterministic: as in `train`.

    Raises:
        ValueError: if `trainer` is no Trainer, a size is below one, or there are fewer devices.

    Example: sixteen episodes of CartPole at once.

        >>> import optax
        >>> from pgjax import environments, estimators, networks, training
        >>> environment = environments.make("CartPole-v1")
        >>> policy = networks.make_policy(environment)
        >>> estimator = estimators.make_estimator(policy, returns=estimators.reward_to_go())
        >>> trainer = training.make_trainer(environment, policy, estimator, optax.adam(0.01), num_episodes=16)
        >>> training.estimate_memory(trainer, devices=1).total > 100_000
        True
    """
    require_kind("trainer", trainer, Trainer, "training.make_trainer(environment, policy, estimator, optimizer)")
    require_integer("num_runs", num_runs, 1, None)
    require_one_of("mapping", mapping, get_args(RunMapping))
    layout = choose_layout(choose_devices(devices), num_runs, trainer.num_episodes, trainer.group_size, deterministic)
    state = jax.eval_shape(trainer.init, jax.eval_shape(lambda: jax.random.key(0)))
    one = bytes_of(state)
    with traced_for(layout.mesh.devices.flat[0]):
        update = round(MARGIN * max(0, peak_bytes(trainer.update, state) - one))
    count = layout.mesh.size
    if isinstance(layout, SharedEpisodes):  # each device holds all states; the devices share one update
        return MemoryEstimate(states=count * num_runs * one, update=update, num_devices=count)
    one_by_one = choose_mapping(mapping, layout.mesh.devices[0]) == "map"
    at_once = count if one_by_one else layout.rows
    return MemoryEstimate(states=layout.rows * one, update=at_once * update, num_devices=count)
