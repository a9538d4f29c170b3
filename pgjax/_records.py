"""What all records share: the type of their fields."""

from typing import Any, TypeAlias

# A tree of containers whose leaves are arrays: what `jax.tree.map` takes. Its shape is checked where it matters.
PyTree: TypeAlias = Any
