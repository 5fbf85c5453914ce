"""Atari, the built-in tasks and any Gymnasium id behind one batched interface.

Importing this package is quick (NumPy only): Gymnasium and the emulator are imported when an
environment is made, so that a command can check its flags first.
"""

from meta_impala.environments.atari import PROTOCOLS
from meta_impala.environments.base import (
    BatchedEnvironment,
    UnknownEnvironmentError,
    UnsupportedEnvironmentError,
)
from meta_impala.environments.registry import (
    ATARI_57,
    Description,
    EnvironmentSpec,
    describe,
    evaluated_in,
    make,
    make_render,
    resolve,
)

__all__ = [
    "ATARI_57",
    "PROTOCOLS",
    "BatchedEnvironment",
    "Description",
    "EnvironmentSpec",
    "UnknownEnvironmentError",
    "UnsupportedEnvironmentError",
    "describe",
    "evaluated_in",
    "make",
    "make_render",
    "resolve",
]
