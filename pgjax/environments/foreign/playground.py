"""Environments of MuJoCo Playground, without its wrappers. The package is imported at the first call.

Source: Zakka et al. (2025), MuJoCo Playground.
"""

from typing import Any

from pgjax._doors import readable
from pgjax.environments.foreign import shared
from pgjax.environments.foreign.brax import raw_of
from pgjax.spaces import Box
from pgjax.types import Environment


@readable
def from_playground(env_or_name: Any, *, horizon: int | None = None, **options: Any) -> Environment:
    """Turn an environment of MuJoCo Playground into an `Environment`.

    What differs from the package: there is no wrapper, hence no automatic reset and no time limit, so `done` is
    `terminated`. The tasks of the DeepMind Control Suite never terminate unless the physics becomes NaN. The physics
    runs in plain JAX (`impl="jax"`) unless the options say otherwise; the package's own default, "warp", is meant for
    GPUs of NVIDIA. Actions lie in [−1, 1].

    Args:
        env_or_name: a name in Playground's registry, such as "CartpoleBalance", or an environment without wrappers.
            Robots (locomotion and manipulation) need the models of MuJoCo Menagerie, which Playground downloads the
            first time; pgjax downloads nothing and refuses these names until the models are there.
        horizon: T; None takes `episode_length` of the environment's configuration.
        **options: entries of that configuration if a name is given.

    Raises:
        MissingPackageError: if Playground is not installed.
        ValueError: for an unknown name or option, a robot without its models, or a `horizon` below 1.

    Example:
        >>> from pgjax import environments
        >>> environments.from_playground("CartpoleBalance").horizon  # doctest: +SKIP
        1000
    """
    name = env_or_name if isinstance(env_or_name, str) else type(env_or_name).__name__
    how = {"package": "mujoco_playground", "extra": "playground", "wanted_by": f"playground:{name}"}
    registry = shared.imported("mujoco_playground", **how).registry
    if isinstance(env_or_name, str):
        shared.require_known(name, registry.ALL_ENVS, "playground")
        _require_models(name, registry)
        overrides = {"impl": "jax", **options}
        load = lambda **overrides: registry.load(name, config_overrides=overrides)
        env = shared.constructed(f"playground:{name}", load, overrides)
    else:
        shared.refuse_options(options)
        env = env_or_name
    return shared.as_environment(
        f"playground:{name}",
        raw_of(env),
        action_space=Box(low=-1.0, high=1.0, shape=(env.action_size,)),
        horizon=int(env._config.episode_length) if horizon is None else horizon,
    )


def _require_models(name: str, registry: Any) -> None:
    """Refuse a robot whose models Playground would download now."""
    models = registry.mjx_env.MENAGERIE_PATH
    if name not in registry.dm_control_suite.ALL_ENVS and not models.exists():
        raise ValueError(
            f"playground:{name} needs the models of MuJoCo Menagerie, which are not at {models}, and pgjax downloads "
            f"nothing: call mujoco_playground.registry.load({name!r}) once, which downloads them"
        )
