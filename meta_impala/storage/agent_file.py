"""What an exported agent says of itself (see `export.py`), read without TensorFlow."""

from __future__ import annotations

import json
import pathlib
from typing import NamedTuple

from meta_impala import config as config_lib
from meta_impala.config import Config
from meta_impala.errors import UserError
from meta_impala.storage.arrays import read_arrays

FORMAT = "meta_impala agent, version 1"
PARAMETERS = "parameters/"


class AgentFile(NamedTuple):
    """Config of the run it came from, and what its network must fit."""

    config: Config
    observation_shape: tuple[int, ...]
    num_actions: int


def read(path: pathlib.Path) -> AgentFile:
    """Reads config and shapes.

    A file that is older than a setting means that setting's `value_if_missing`. That the weights
    fit is checked when they are loaded.

    Raises:
      UserError: if it is no such file, or damaged.
    """
    try:
        file = read_arrays(path)
        about = json.loads(str(file["about"]))
        saved = str(file["config"])
        if about["format"] != FORMAT:
            raise UserError(f'{path}: has the format "{about["format"]}"; must be "{FORMAT}"')
        shape, num_actions = tuple(about["observation_shape"]), int(about["num_actions"])
    except FileNotFoundError:
        raise UserError(f"--agent={path}: there is no such file") from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--agent={path}: is no exported agent, or damaged ({reason})") from None
    return AgentFile(config_lib.from_json(saved, path), shape, num_actions)
