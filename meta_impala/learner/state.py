"""What an update changes (`LearnerState`, saved in checkpoints) and reports (`Statistics`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from meta_impala.agent.builders import Method
from meta_impala.algorithm import optimizers
from meta_impala.config import UpdateSettings
from meta_impala.learner.window_state import Window
from meta_impala.networks.actor_critic import ActorCritic


def _variables(tensors: Sequence[tf.Tensor], name: str) -> list[tf.Variable]:
    return [tf.Variable(tensor, trainable=False, name=name) for tensor in tensors]


def _slot_variables(slots: optimizers.Slots) -> dict[str, list[tf.Variable]]:
    return {name: _variables(tensors, name) for name, tensors in slots.items()}


class LearnerState(tf.Module):
    """Everything an update changes, as variables: what a checkpoint holds.

    Attributes:
      network: θ.
      slots: of the inner optimiser, by name, each a list like θ.
      x: `[n]` logits of η (n = what is learned), or `[F+1, n]` (see `MetaParameters`).
      auxiliary_x: like x, of the auxiliary heads.
      meta_slots: of the meta-optimiser, by name, each a list like `logits`.
      trace: z ≈ dθ/dx: for every entry of x a list like θ; empty without a trace.
      moments: moving moments of the advantages of J' (`losses.MovingMoments`); empty without.
      updates: int64, learner updates made.
      frames: int64, environment frames learned from.
      window: with `--inner_steps` above 1, the updates since the last meta step.
    """

    def __init__(self, settings: UpdateSettings, method: Method, network: ActorCritic) -> None:
        super().__init__(name="learner_state")
        self.network = network
        dtype = network.dtype
        parameters = network.trainable_variables
        table = method.meta_parameters
        initial_logits = table.initial_logits(network.num_features if table.is_per_state else None)
        # Every slot exists before a checkpoint is read.
        self.slots = _slot_variables(method.inner_optimizer.initial_slots(parameters))
        self.x = tf.Variable(initial_logits, dtype=dtype, trainable=False, name="x")
        self.auxiliary_x = [
            tf.Variable(initial_logits, dtype=dtype, trainable=False, name=f"auxiliary_x_{index}")
            for index in range(network.settings.auxiliary_heads)
        ]
        self.meta_slots = _slot_variables(method.meta_optimizer.initial_slots(self.logits))
        traced = table.learned if settings.meta_gradient_mode == "accumulative_trace" else ()
        self.trace = [
            _variables([tf.zeros_like(parameter) for parameter in parameters], f"trace_{name}")
            for name in traced
        ]
        normalised = table.learned and settings.meta_advantage_normalization == "ema"
        self.moments = _variables(tf.zeros([3, 1], dtype)[:, 0] if normalised else [], "moments")
        self.updates = tf.Variable(0, dtype=tf.int64, trainable=False)
        # Of several inner steps; the learner makes it, which knows what a batch is.
        self.window: Window | None = None
        self.frames = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._is_corrected = isinstance(method.meta_optimizer, optimizers.CorrectedRMSProp)

    @property
    def logits(self) -> list[tf.Variable]:
        """x of the head that acts, then of the auxiliary heads."""
        return [self.x, *self.auxiliary_x]

    @property
    def counts(self) -> tuple[int, int]:
        """Frames learned from, and updates made."""
        return int(self.frames.numpy()), int(self.updates.numpy())

    @property
    def shared_variables(self) -> tuple[tf.Variable, ...]:
        """What is the same for all learners: all but a window, whose batches are each one's own."""
        return self._without([] if self.window is None else self.window.variables)

    @property
    def finite_variables(self) -> tuple[tf.Variable, ...]:
        """What must be finite: all but the data of a window, as rewards are what they are."""
        return self._without([] if self.window is None else self.window.data)

    def _without(self, variables: Iterable[tf.Variable]) -> tuple[tf.Variable, ...]:
        left_out = {variable.ref() for variable in variables}
        return tuple(v for v in self.variables if v.ref() not in left_out)

    def without_window(self) -> tf.Module:
        """A module that holds all but the window, under the same names."""
        rest = tf.Module("learner_state")
        for name, value in vars(self).items():
            if not name.startswith("_") and name != "window":
                setattr(rest, name, value)
        return rest

    def as_older(self) -> tuple[tf.Module, list[tuple[tf.Variable, int]]]:
        """The state as in a version that did not have all of its variables yet.

        Returns:
          A module that holds what that version had, under the same names, and (variable, value) of
          the others: what their absence means.
        """
        older = tf.Module("learner_state")
        for name in ("network", "slots", "x", "trace", "moments", "updates", "frames"):
            setattr(older, name, getattr(self, name))
        slots, younger = dict(self.meta_slots), []
        if self._is_corrected:
            (count,) = slots.pop("count")
            younger = [(count, optimizers.CorrectedRMSProp.COUNT_IF_MISSING)]
        older.meta_slots = slots
        return older, younger


class Statistics(NamedTuple):
    """Scalars of one update; losses and entropy are means per agent step (J and J' are sums).

    `steps` are the agent steps of the batch, of all learners; rows of weight 0 do not count. γ and
    λ are means over the batch where they differ within it; the meta-gradient and the step of x are
    then those of the bias. The entries from `meta_loss` on are NaN where nothing (or that
    parameter) is learned.

    `others` are value, meta-gradient and step of x of what is learned besides γ and λ, by column
    (`config.metric_columns.learned_columns`).

    `applied` is of θ, and with one inner step of η too. With several `meta_applied` says whether
    the meta step that followed the update was applied; NaN if none followed.
    """

    inner_loss: float
    policy_loss: float
    value_loss: float
    entropy: float
    gradient_norm: float
    clip_coefficient: float
    rho_clipped_share: float
    steps: float
    gamma: float
    lambda_: float
    applied: float
    meta_loss: float
    meta_gradient_norm: float
    meta_gradient_gamma: float
    meta_gradient_lambda: float
    x_step_gamma: float
    x_step_lambda: float
    others: Mapping[str, float] = {}
    meta_applied: float = math.nan

    def numbers(self) -> dict[str, float]:
        """All of it by name."""
        fixed = {name: float(getattr(self, name)) for name in FIXED}
        return fixed | dict(self.others)


# Of every run, whatever is learned.
FIXED = Statistics._fields[: Statistics._fields.index("others")]
