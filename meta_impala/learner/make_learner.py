"""Makes a learner from the settings of a run: its network, the method's objects, its memory."""

from __future__ import annotations

import math

import tensorflow as tf

from meta_impala.agent.builders import make_network, method_of
from meta_impala.algorithm.functions_of_frames import StepFunction
from meta_impala.config import AgentSettings, Config, MethodSettings, UpdateSettings
from meta_impala.environments import Description
from meta_impala.learner.group import ALONE, LearnerGroup
from meta_impala.learner.learner import Learner
from meta_impala.system import huge_pages
from meta_impala.system.tensorflow_setup import learner_device

# What an update keeps at a time, in units of τ in float32: an upper bound, measured on Atari.
_KEPT = 6
_KEPT_BY_DEEP = {"nested_tapes": 40, "reverse_over_forward": 80, "accumulative_trace": 80}


def make_learner(
    config: Config,
    description: Description,
    *,
    group: LearnerGroup = ALONE,
    replayed: StepFunction | None = None,
    dtype: tf.DType = tf.float32,
) -> Learner:
    """Makes a learner with a new network.

    Args:
      config: resolved, network included; of several learners this one's share.
      description: of the environment.
      group: the learners that make every update together.
      replayed: with `eta_schedule=replay`, what varies, from the file.
      dtype: of the weights and of all computation.
    """
    network = make_network(config.part(AgentSettings), description, dtype)
    method = method_of(config.part(MethodSettings), replayed)
    return Learner(config.part(UpdateSettings), method, network, description, group)


def reserve_memory(config: Config, description: Description) -> None:
    """Asks for huge pages for what an update keeps at a time; not for a learner on a GPU.

    Args:
      config: as above.
      description: of the environment.
    """
    if not learner_device(config.learner_device).startswith("CPU"):
        return
    states = config.batch_size * (config.unroll_length + 1) // config.micro_batches
    kept = _KEPT_BY_DEEP[config.meta_gradient_mode] if config.network == "deep" else _KEPT
    huge_pages.reserve(4 * kept * states * math.prod(description.observation_shape))
