"""Makes a learner from the settings of a run: its network, the method's objects, the learner."""

from __future__ import annotations

import tensorflow as tf

from meta_impala.agent.builders import make_network, method_of
from meta_impala.algorithm.functions_of_frames import StepFunction
from meta_impala.config import AgentSettings, Config, MethodSettings, UpdateSettings
from meta_impala.environments import Description
from meta_impala.learner.group import ALONE, LearnerGroup
from meta_impala.learner.learner import Learner


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
