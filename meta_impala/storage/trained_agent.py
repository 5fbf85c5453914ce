"""The agent, or the whole learner, of a run's newest checkpoint; and an agent as one small file.

An agent file is a plain `.npz` without pickle, which `numpy.load` reads: `about` (a JSON text:
format, version, frames and updates behind it, checkpoint, what the network must fit), `config` (the
JSON text of `config.json`), `eta` (what the network is fed) and `parameters/000/NAME`, ... (θ as
float32, in the network's order). No optimiser slots.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from meta_impala import __version__
from meta_impala import config as config_lib
from meta_impala.agent.builders import make_network
from meta_impala.agent.policy import EtaSnapshot, Snapshot
from meta_impala.config import AgentSettings, Config
from meta_impala.environments import Description
from meta_impala.errors import UserError, one_line, printable
from meta_impala.learner.learner import Learner
from meta_impala.learner.make_learner import make_learner
from meta_impala.networks.actor_critic import ActorCritic
from meta_impala.storage import eta_replay
from meta_impala.storage.arrays import ArrayFile, open_arrays, write_arrays
from meta_impala.storage.checkpoint import identity_of, restore_for_evaluation
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trained_run import AGENT_FORMAT, PARAMETERS

_MAX_COUNT = 2**63


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
      checkpoints: folder of the checkpoints, in that of the run; nothing in it is touched.
      config: of the run, resolved, network included.
      description: of its environment.

    Returns:
      The learner, and the name of the checkpoint.

    Raises:
      UserError: if there is no checkpoint, it is of another run, or every one is damaged;
        if the run replays an η whose file is missing or changed.
    """
    replayed = eta_replay.load(RunFolder(checkpoints.parent), config)
    learner = make_learner(config, description, replayed=replayed)
    identity = identity_of(config.part(AgentSettings), description, learner.state)
    path = restore_for_evaluation(checkpoints, learner.state, identity)
    return learner, path.name


def with_eta(snapshot: Snapshot, gamma: float, lambda_: float) -> Snapshot:
    """The same θ with another η as the network's input."""
    eta = snapshot.eta
    others = [] if eta.per_state else eta.values.numpy()[2:]
    return snapshot._replace(
        eta=EtaSnapshot(tf.constant([gamma, lambda_, *others], tf.float32), per_state=False)
    )


def save_agent(
    path: pathlib.Path, agent: TrainedAgent, config: Config, description: Description
) -> None:
    """Writes an agent file as a whole, or not at all.

    Args:
      path: of the file; ends in `.npz`.
      agent: of a checkpoint.
      config: of the run, resolved, network included.
      description: of its environment.

    Raises:
      UserError: if it cannot be written.
    """
    about = {
        "format": AGENT_FORMAT,
        "meta_impala": __version__,
        "frames": agent.frames,
        "updates": agent.snapshot.version,
        "checkpoint": agent.checkpoint,
        "observation_shape": list(description.observation_shape),
        "num_actions": description.num_actions,
    }
    arrays: dict[str, np.ndarray] = {
        "about": np.array(json.dumps(about)),
        "config": np.array(config_lib.to_json(config)),
        "eta": agent.snapshot.eta.values.numpy(),
    }
    variables = agent.network.trainable_variables
    for index, (variable, tensor) in enumerate(
        zip(variables, agent.snapshot.parameters, strict=True)
    ):
        name = variable.name.removesuffix(":0")
        arrays[f"{PARAMETERS}{index:03}/{name}"] = tensor.numpy()
    try:
        write_arrays(path, arrays, compressed=True)
    except OSError as error:
        raise UserError(f"--out={path}: cannot be written ({one_line(error)})") from None


def load_agent_file(
    path: pathlib.Path, settings: AgentSettings, description: Description
) -> TrainedAgent:
    """The agent of a file.

    Args:
      path: of the file.
      settings: as `trained_run.read_agent_file` gives them, network included.
      description: of its environment as it is here.

    Raises:
      UserError: if its weights or its η do not fit the network of its settings, or are not finite.
    """
    network = make_network(settings, description)
    try:
        with open_arrays(path) as file:
            about = json.loads(file.text("about"))
            frames, updates = _count(about["frames"]), _count(about["updates"])
            arrays = _weights(file, network)
            eta = _eta(file, network, settings)
        checkpoint = printable(about["checkpoint"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: is damaged ({one_line(error)})") from None
    for variable, array in zip(network.trainable_variables, arrays, strict=True):
        variable.assign(array)
    return TrainedAgent(
        network=network,
        snapshot=Snapshot(
            updates,
            tuple(map(tf.constant, arrays)),
            EtaSnapshot(tf.constant(eta), settings.eta_is_per_state),
        ),
        frames=frames,
        checkpoint=checkpoint,
    )


def _weights(file: ArrayFile, network: ActorCritic) -> list[np.ndarray]:
    """θ. Shapes are compared before a weight is read, so that memory is bounded by the network."""
    variables = network.trainable_variables
    names = sorted(name for name in file.headers if name.startswith(PARAMETERS))
    shapes = [(tuple(variable.shape), variable.dtype.as_numpy_dtype) for variable in variables]
    found = [(file.headers[name].shape, file.headers[name].dtype.type) for name in names]
    if found != shapes:
        raise ValueError(
            f"its {len(found)} arrays of weights do not fit the network of its config, which has "
            f"{len(shapes)}"
        )
    arrays = [file.read(name) for name in names]
    for name, array in zip(names, arrays, strict=True):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite")
    return arrays


def _eta(file: ArrayFile, network: ActorCritic, settings: AgentSettings) -> np.ndarray:
    """What is fed of η: γ, λ and what is embedded besides; per state the weights of its logits."""
    is_per_state = settings.eta_is_per_state
    shape: tuple[int, ...] = (len(settings.embedded),)
    if is_per_state:
        shape = (network.num_features + 1, len(settings.learned))
    header = file.headers.get("eta")
    if header is None or header.shape != shape or header.dtype.kind != "f":
        found = "missing" if header is None else f"{header.dtype}{list(header.shape)}"
        raise ValueError(f"eta is {found}; must be float32{list(shape)}")
    eta = file.read("eta").astype(np.float32)
    if not np.isfinite(eta).all():
        raise ValueError("eta is not finite")
    if not is_per_state and not ((eta >= 0.0) & (eta <= 1.0)).all():
        raise ValueError(f"eta is {eta.tolist()}; must lie in [0, 1]")
    return eta


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MAX_COUNT:
        raise ValueError(f"a count of {value}")
    return value
