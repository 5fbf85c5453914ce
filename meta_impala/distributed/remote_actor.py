"""An actor in a process of its own, somewhere on a Ray cluster: what runs there, and what travels.

It is the actor of the threads (`actor.py`); only the ways of weights and unrolls are others.
TensorFlow is imported when the first unroll is asked for, after it was configured.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from meta_impala.actors.trajectory import Block, Episode
from meta_impala.config import Config
from meta_impala.distributed.wire import PackedUnroll, pack, unpack
from meta_impala.storage.arrays import read_arrays, write_arrays
from meta_impala.system.tensorflow_import import import_tensorflow, quiet_tensorflow

if TYPE_CHECKING:
    from meta_impala.actors.actor import Actor
    from meta_impala.agent.policy import Snapshot
    from meta_impala.environments import Description


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
    """The class of the Ray actor that puts weights into the object store, in the learner's place.

    It runs on the learner's machine. Ray ends, in the middle of it and without a word, a process
    that is talking to the object store when the store dies: that must not be the learner.
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


class Delivery(NamedTuple):
    """A `Block` on its way to the learner."""

    unroll: PackedUnroll
    version: int
    episodes: tuple[Episode, ...]
    actor: int

    @classmethod
    def of(cls, block: Block) -> Delivery:
        """The form of a block to send."""
        return cls(pack(block.unroll), block.version, block.episodes, block.actor)

    def block(self) -> Block:
        """The block as it was."""
        return Block(unpack(self.unroll), self.version, self.episodes, self.actor)


class RemoteActor:
    """The class of the Ray actors."""

    def __init__(self, index: int, seed: int, config: Config, description: Description) -> None:
        """Args:
        index: of the actor.
        seed: of its first environment.
        config: of the run, resolved.
        description: of the environment.
        """
        self._index = index
        self._seed = seed
        self._config = config
        self._description = description
        self._actor: Actor | None = None
        self._snapshot: Snapshot | None = None

    def place(self) -> None:
        """Returns as soon as the cluster has found room for this process."""

    def unroll(self, weights: Weights) -> Delivery:
        """Plays T steps."""
        if self._actor is None:
            self._actor = self._make()
        if self._snapshot is None or self._snapshot.version != weights.version:
            self._snapshot = weights.snapshot()
        return Delivery.of(self._actor.unroll(self._snapshot))

    def _make(self) -> Actor:
        quiet_tensorflow()
        import_tensorflow()
        from meta_impala.actors.actor import Actor
        from meta_impala.agent.builders import eta_schedule_of, make_network
        from meta_impala.agent.policy import Policy
        from meta_impala.environments import registry
        from meta_impala.system.tensorflow_setup import configure_tensorflow

        config = self._config
        configure_tensorflow(deterministic=config.deterministic, cores=1)
        network = make_network(config, self._description)
        actor = Actor(
            self._index,
            registry.make(
                config.environment,
                config.envs_per_actor,
                config.protocol,
                num_threads=config.env_threads,
                environment_kwargs=config.environment_arguments,
            ),
            Policy(network, config, self._description, config.envs_per_actor),
            config.unroll_length,
            eta_schedule=eta_schedule_of(config),
        )
        actor.reset(self._seed, network.settings.core_state_size)
        return actor
