"""An actor as a process on a Ray cluster, and the form in which it sends a block.

It wraps the `Actor` that the actor threads run; only how weights and unrolls are sent differs.
TensorFlow is imported and configured when the first unroll is requested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meta_impala.actors.trajectory import Block, Episode
from meta_impala.config import RemoteActorSettings
from meta_impala.config.hyper_parameters import SETTINGS_OF_NAMES, in_order
from meta_impala.config.text import shown
from meta_impala.distributed.weights import Weights
from meta_impala.distributed.wire import PackedUnroll, pack, unpack
from meta_impala.environments import registry
from meta_impala.errors import UserError
from meta_impala.system.tensorflow_import import import_tensorflow, quiet_tensorflow

if TYPE_CHECKING:
    from meta_impala.actors.actor import Actor
    from meta_impala.agent.policy import Snapshot
    from meta_impala.environments import Description


class Delivery(NamedTuple):
    """A `Block` on its way to the learner."""

    unroll: PackedUnroll
    version: int
    episodes: tuple[Episode, ...]
    actor: int

    @classmethod
    def of(cls, block: Block) -> Delivery:
        """A block, packed."""
        return cls(pack(block.unroll), block.version, block.episodes, block.actor)

    def block(self) -> Block:
        """The original block."""
        return Block(unpack(self.unroll), self.version, self.episodes, self.actor)


class RemoteActor:
    """The class of the Ray actors."""

    def __init__(
        self, index: int, seed: int, settings: RemoteActorSettings, description: Description
    ) -> None:
        """Args:
        index: of the actor.
        seed: of its first environment.
        settings: of the run, resolved.
        description: of the environment.
        """
        self._index = index
        self._seed = seed
        self._settings = settings
        self._description = description
        self._actor: Actor | None = None
        self._snapshot: Snapshot | None = None

    def place(self) -> None:
        """Returns as soon as the cluster has found room for this process.

        Raises:
          UserError: if the run has meta-parameters that are not registered in this process.
        """
        try:
            self._check_names()
        except UserError:
            registry.resolve(self._settings.environment)  # its module may register them
            self._check_names()

    def _check_names(self) -> None:
        """Names that this process does not know would be left out: the network would be fed another
        η than the learner's. The order counts, too."""
        for flag, words in SETTINGS_OF_NAMES.items():
            text = getattr(self._settings, flag)
            known = ",".join(in_order(text))
            if text not in words and known != text:
                raise UserError(
                    f"--{flag}={shown(text)}: means {known or 'nothing'} in the process of the "
                    "actor; with --actors=ray, meta-parameters of your own must be registered by "
                    "the module of the environment (my_module:MyEnv-v0), which every actor imports"
                )

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
        from meta_impala.actors.making import make_environment
        from meta_impala.actors.startup import make_actor
        from meta_impala.agent.builders import make_network
        from meta_impala.agent.policy import Policy
        from meta_impala.system.tensorflow_setup import configure_tensorflow

        settings = self._settings
        configure_tensorflow(deterministic=settings.deterministic, cores=1)
        network = make_network(settings, self._description)
        policy = Policy(network, settings, self._description, settings.envs_per_actor)
        environment = make_environment(settings, settings)
        actor = make_actor(self._index, settings, policy, environment)
        actor.reset(self._seed, network.settings.core_state_size)
        return actor
