"""The kind of device for which a program is traced. Every choice that depends on the kind of device asks here."""

import contextlib

import jax

# `jax.export` and `jax.default_device` know a GPU by the name of its maker's software, and a device calls itself "gpu".
_NAMES = {"cuda": "gpu", "rocm": "gpu"}


def platform() -> str:
    """`"cpu"`, `"gpu"` or `"tpu"`: the kind of the device of `jax.default_device`, and else of JAX's first devices."""
    default = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]  defined while jax is imported
    name = jax.default_backend() if default is None else default if isinstance(default, str) else default.platform
    return _NAMES.get(name, name)


def traced_for(device: jax.Device) -> contextlib.AbstractContextManager[None]:  # pyright: ignore[reportInvalidTypeForm]
    """A context in which `platform()` is the kind of `device`: on a machine with a GPU, a program for its CPUs."""
    same = device.platform == platform()
    return contextlib.nullcontext() if same else jax.default_device(device)
