"""An agent in one file: θ, η and config, without optimiser slots; a plain `.npz`, no pickle.

Arrays of the file: `about` (a JSON text: format, version, frames and updates behind it, checkpoint,
what the network must fit), `config` (the JSON text of `config.json`), `eta` (what the network is
fed) and `parameters/000/NAME`, ... (θ as float32, in the network's order). `numpy.load` reads it.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from meta_impala import __version__
from meta_impala import config as config_lib
from meta_impala.agent.builders import eta_is_per_state, make_network
from meta_impala.agent.policy import EtaSnapshot, Snapshot
from meta_impala.config import Config
from meta_impala.environments import Description
from meta_impala.errors import UserError
from meta_impala.storage.agent_file import FORMAT, PARAMETERS
from meta_impala.storage.arrays import read_arrays
from meta_impala.storage.trained_agent import TrainedAgent


def save(path: pathlib.Path, agent: TrainedAgent, config: Config, description: Description) -> None:
    """Writes the file as a whole, or not at all.

    Args:
      path: of the file; ends in `.npz`.
      agent: of a checkpoint.
      config: of the run, resolved, network included.
      description: of its environment.

    Raises:
      UserError: if it cannot be written.
    """
    about = {
        "format": FORMAT,
        "meta_impala": __version__,
        "frames": agent.frames,
        "updates": agent.snapshot.version,
        "checkpoint": agent.checkpoint,
        "observation_shape": list(description.observation_shape),
        "num_actions": description.num_actions,
    }
    arrays: dict[str, Any] = {
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
    aside = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    try:
        np.savez_compressed(aside, **arrays)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise UserError(f"--out={path}: cannot be written ({error.strerror})") from None


def load(path: pathlib.Path, config: Config, description: Description) -> TrainedAgent:
    """The agent of a file.

    Args:
      path: of the file.
      config: as `agent_file.read` gives it, network included.
      description: of its environment as it is here.

    Raises:
      UserError: if its weights do not fit the network of its config.
    """
    network = make_network(config, description)
    try:
        file = read_arrays(path)
        about = json.loads(str(file["about"]))
        eta = np.asarray(file["eta"], np.float32)
        frames, updates = int(about["frames"]), int(about["updates"])
        checkpoint = str(about["checkpoint"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is damaged ({error})") from None
    arrays = [file[name] for name in sorted(file) if name.startswith(PARAMETERS)]
    variables = network.trainable_variables
    shapes = [(tuple(variable.shape), variable.dtype.as_numpy_dtype) for variable in variables]
    found = [(array.shape, array.dtype.type) for array in arrays]
    if found != shapes:
        raise UserError(
            f"{path}: its {len(found)} arrays of weights do not fit the network of its config, "
            f"which has {len(shapes)}"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    parameters = tuple(tf.constant(array) for array in arrays)
    return TrainedAgent(
        network=network,
        snapshot=Snapshot(
            updates, parameters, EtaSnapshot(tf.constant(eta), eta_is_per_state(config))
        ),
        frames=frames,
        checkpoint=checkpoint,
    )
