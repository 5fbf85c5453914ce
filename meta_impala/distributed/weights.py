"""The weights on their way from the learner to the Ray actors.

The learner writes them to a file, and a helper process on its machine (`Publisher`) puts them into
Ray's object store, from which every node fetches a version once.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from meta_impala.storage.arrays import read_arrays, write_arrays

if TYPE_CHECKING:
    from meta_impala.agent.policy import Snapshot


class Weights(NamedTuple):
    """A `Snapshot` in NumPy arrays."""

    version: int
    parameters: tuple[np.ndarray, ...]
    eta: np.ndarray
    eta_is_per_state: bool

    @classmethod
    def of(cls, snapshot: Snapshot) -> Weights:
        """The weights of a snapshot."""
        parameters = tuple(parameter.numpy() for parameter in snapshot.parameters)
        eta, per_state = snapshot.eta
        return cls(snapshot.version, parameters, eta.numpy(), per_state)

    def snapshot(self) -> Snapshot:
        """The snapshot again, in memory of this process."""
        import tensorflow as tf

        from meta_impala.agent.policy import EtaSnapshot, Snapshot

        return Snapshot(
            self.version,
            tuple(tf.constant(parameter) for parameter in self.parameters),
            EtaSnapshot(tf.constant(self.eta), self.eta_is_per_state),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.eta.nbytes + sum(parameter.nbytes for parameter in self.parameters)


class Publisher:
    """The class of the Ray actor that puts weights into the object store for the learner.

    It runs on the learner's machine. Ray ends a process, without a message, that is talking to the
    object store when the store dies: that must not be the learner's.
    """

    def load(self, path: str) -> Weights:
        """The weights of a file that `save` wrote; it is removed. Ray stores what is returned."""
        arrays = read_arrays(pathlib.Path(path))
        pathlib.Path(path).unlink()
        version, eta = int(arrays.pop("version")), arrays.pop("eta")
        per_state = bool(arrays.pop("eta_is_per_state"))
        parameters = tuple(arrays[str(i)] for i in range(len(arrays)))
        return Weights(version, parameters, eta, per_state)


def save(weights: Weights, path: pathlib.Path) -> None:
    """Writes weights for `Publisher.load`."""
    parameters = {str(index): array for index, array in enumerate(weights.parameters)}
    others = {
        "version": np.array(weights.version),
        "eta": weights.eta,
        "eta_is_per_state": np.array(weights.eta_is_per_state),
    }
    write_arrays(path, others | parameters)
