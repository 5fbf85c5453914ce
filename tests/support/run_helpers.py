"""What the tests of whole runs share: tiny runs on Catch, in process, and what they leave."""

import csv
import json

import numpy as np

from meta_impala.config import Config, resolve, resolve_network
from meta_impala.environments import registry
from meta_impala.environments.catch import CATCH_ID
from meta_impala.storage import eta_replay
from meta_impala.storage.run_folder import RunFolder
from meta_impala.system.signals import StopRequest
from meta_impala.training.trainer import Trainer

BATCH_FRAMES = 4 * 5


def make_config(**settings) -> Config:
    defaults = {
        "environment": CATCH_ID,
        "total_frames": 10 * BATCH_FRAMES,
        "batch_size": 4,
        "envs_per_actor": 2,
        "meta_batch_size": 3,
        "unroll_length": 5,
        "mlp_sizes": "8",
        "learning_rate": 0.01,
        "log_frames": 2 * BATCH_FRAMES,
    }
    return resolve(Config(**(defaults | settings)))


def make_trainer(path, config: Config, stop: StopRequest | None = None, early=None) -> Trainer:
    folder = RunFolder(path)
    folder.prepare()
    description = registry.describe(config.environment, config.protocol)
    config = resolve_network(config, description.observation_shape)
    config = eta_replay.pin(config)
    eta_replay.keep(folder, config)
    folder.save_config(config)
    return Trainer(config, description, folder, stop or StopRequest(), early=early)


def read_metrics(path) -> list[dict[str, str]]:
    with open(path / "metrics.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_status(path) -> dict:
    return json.loads((path / "status.json").read_text("utf-8"))


def numbers(state) -> list[np.ndarray]:
    """Every variable of a learner's state, in a fixed order."""
    return [variable.numpy() for variable in state.variables]


def files_of(folder) -> dict:
    """The content of every file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class StopAfter(StopRequest):
    """Asks to stop after it was polled so many times."""

    def __init__(self, polls: int) -> None:
        super().__init__()
        self._polls = polls

    def is_set(self) -> bool:
        self._polls -= 1
        return self._polls < 0
