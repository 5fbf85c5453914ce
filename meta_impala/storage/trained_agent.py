"""The agent, or the whole learner, of a run's newest checkpoint."""

from __future__ import annotations

import hashlib
import pathlib
from typing import NamedTuple

import tensorflow as tf

from meta_impala.agent.builders import make_network
from meta_impala.agent.policy import EtaSnapshot, Snapshot
from meta_impala.config import Config
from meta_impala.environments import Description
from meta_impala.learner.learner import Learner
from meta_impala.networks.actor_critic import ActorCritic
from meta_impala.storage.checkpoint import identity_of, restore_for_evaluation


class TrainedAgent(NamedTuple):
    """The agent of a checkpoint.

    Attributes:
      network: its variables hold θ too.
      snapshot: θ and the η that the network is fed.
      frames: environment frames learned from.
      checkpoint: name of the checkpoint, or of the file.
    """

    network: ActorCritic
    snapshot: Snapshot
    frames: int
    checkpoint: str

    def digest(self) -> str:
        """A short digest of θ and η: the same for the same agent, wherever it was read from."""
        hashed = hashlib.sha256()
        for tensor in (*self.snapshot.parameters, self.snapshot.eta.values):
            hashed.update(tensor.numpy().tobytes())
        return hashed.hexdigest()[:16]


def load_agent(checkpoints: pathlib.Path, config: Config, description: Description) -> TrainedAgent:
    """The agent of the newest checkpoint; arguments and errors as `load_learner`."""
    learner, checkpoint = load_learner(checkpoints, config, description)
    return TrainedAgent(
        network=learner.state.network,
        snapshot=learner.snapshot(),
        frames=int(learner.state.frames.numpy()),
        checkpoint=checkpoint,
    )


def load_learner(
    checkpoints: pathlib.Path, config: Config, description: Description
) -> tuple[Learner, str]:
    """A learner with all of the newest checkpoint that is whole; training may be writing the next.

    Args:
      checkpoints: folder of the checkpoints; nothing in it is touched.
      config: of the run, resolved, network included.
      description: of its environment.

    Returns:
      The learner, and the name of the checkpoint.

    Raises:
      UserError: if there is no checkpoint, or it is of another run, or none is whole.
    """
    learner = Learner(config, description, make_network(config, description))
    identity = identity_of(config, description, learner.state)
    path = restore_for_evaluation(checkpoints, learner.state, identity)
    return learner, path.name


def with_eta(snapshot: Snapshot, gamma: float, lambda_: float) -> Snapshot:
    """The same θ, fed another η."""
    eta = snapshot.eta
    others = [] if eta.per_state else eta.values.numpy()[2:]
    return snapshot._replace(
        eta=EtaSnapshot(tf.constant([gamma, lambda_, *others], tf.float32), per_state=False)
    )
