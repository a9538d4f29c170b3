"""Environments of other packages as `Environment` records. Each package is imported when its adapter is called.

`brax`, `jumanji`, `navix`, `pgx` and `playground` hold one adapter each, and `mjx` holds robots of MuJoCo's own JAX
engine. `gymnasium` is different: its environments run on the host, in NumPy, and `rollouts.host_episodes` plays them.
"""

from pgjax.environments.foreign.brax import from_brax
from pgjax.environments.foreign.gymnasium import HostEnvironment, from_gymnasium
from pgjax.environments.foreign.jumanji import from_jumanji
from pgjax.environments.foreign.mjx import make_robot
from pgjax.environments.foreign.navix import from_navix
from pgjax.environments.foreign.pgx import from_pgx
from pgjax.environments.foreign.playground import from_playground
from pgjax.environments.foreign.shared import MissingPackageError

# The part of a name before ":" → what makes the environment that the rest names.
ADAPTERS = {
    "brax": from_brax,
    "gymnasium": from_gymnasium,
    "jumanji": from_jumanji,
    "mjx": make_robot,
    "navix": from_navix,
    "pgx": from_pgx,
    "playground": from_playground,
}

__all__ = [
    "ADAPTERS",
    "HostEnvironment",
    "MissingPackageError",
    "from_brax",
    "from_gymnasium",
    "from_jumanji",
    "from_navix",
    "from_pgx",
    "from_playground",
    "make_robot",
]
