"""A window of inner updates by the learner's own parts; the oracle of several heads."""

import dataclasses

import numpy as np
import tensorflow as tf

from meta_impala.algorithm import meta_gradient
from meta_impala.learner.batch import batch_signature
from meta_impala.learner.group import LearnerGroup
from meta_impala.learner.window_state import Window
from meta_impala.learner.window_step import WindowStep
from support.update_oracle import Case

MODES = ("nested_tapes", "reverse_over_forward")


class CaseOfHeads(Case):
    """A case whose x are the logits of all heads, one after the other; the first head acts."""

    def logits_of_heads(self, x):
        """`[1 + H, n]`."""
        return x.reshape(-1, len(self.agent.config.learned))

    def inner_gradient(self, x, places=None):
        """∇_θ J, the sum over the heads; what is constant is that of all of x as it is."""
        first, *others = self.logits_of_heads(x)
        total = super().inner_gradient(first, places)
        for self.head, own in enumerate(others, 1):
            parts = super().inner_gradient(own, self.everywhere(own))
            total = [one + other for one, other in zip(total, parts, strict=True)]
        self.head = 0
        return total


def with_heads(case, logits):
    """The case with these logits `[1 + H, n]`."""
    fields = {field.name: getattr(case, field.name) for field in dataclasses.fields(case)}
    return CaseOfHeads(**fields | {"x": np.ravel(logits)})


class Eagerly(LearnerGroup):
    """A learner alone, nothing of which is traced."""

    def function(self, function, signature):
        return function


def _no_step(found, num_meta_rows):
    raise AssertionError("only the meta-gradient is wanted")


def assign_logits(case):
    """x of the case to the learner's state."""
    variables = case.agent.learner.state.logits
    for variable, values in zip(variables, np.split(case.x, len(variables)), strict=True):
        variable.assign(values)


def _one_update_of(case):
    """A window of length 1, which the learner itself has no use for."""
    agent = case.agent
    signature = batch_signature(agent.config, agent.description, 0)
    return Window(1, agent.network, agent.learner.state.slots, signature, 1)


def window_gradients(case, batches, before_meta_batch=(), modes=MODES):
    """What the learner's own parts make of the window in each mode, and its θ_K.

    Args:
      case: with the meta batch; its learner's θ and slots come back.
      batches: of the inner updates.
      before_meta_batch: batches of a bootstrapped target that come before the meta batch.
      modes: values of `--meta_gradient_mode`.
    """
    learner = case.agent.learner
    factory, state = learner.factory, learner.state
    assign_logits(case)
    variables = case.agent.network.trainable_variables
    window = state.window or _one_update_of(case)
    state.window = window
    before = [
        [v.numpy() for v in variables],
        tf.nest.map_structure(lambda v: v.numpy(), state.slots),
    ]
    for batch in batches:
        window.begin_update(variables, state.slots)
        rate = tf.constant(case.agent.config.learning_rate, tf.float64)
        parts = factory.inner_parts(factory.trajectories(batch), rate)
        step = meta_gradient.inner_step(*parts)
        for variable, value in zip(
            tf.nest.flatten([list(variables), state.slots]),
            tf.nest.flatten([step.parameters, step.update_auxiliary[0]]),
            strict=True,
        ):
            variable.assign(value)
        window.end_update(batch, step.gradients, case.agent.config.learning_rate)
    last = [v.read_value() for v in variables]
    order, found = tf.range(case.meta_batch.rewards.shape[1]), {}
    for mode in modes:
        settings = dataclasses.replace(learner.window_factory.settings, meta_gradient_mode=mode)
        windows = dataclasses.replace(learner.window_factory, settings=settings)
        step = WindowStep(settings, windows, state, _no_step, Eagerly(), [])
        found[mode] = step.gradient((*before_meta_batch, case.meta_batch), order)
    for variable, value in zip(
        tf.nest.flatten([list(variables), state.slots]), tf.nest.flatten(before), strict=True
    ):
        variable.assign(value)
    return found, [value.numpy() for value in last]
