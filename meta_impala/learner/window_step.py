"""The meta step at the end of a window of K inner updates, as the functions that it is traced in.

With nested tapes it is one function around all K updates. In mixed mode it is a function for J',
one that goes back through an update and is called K − 1 times, one for the first update, and one
for the step of x: neither graph nor memory grows with K, except for what the window keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from meta_impala.actors.trajectory import Unroll
from meta_impala.algorithm.optimizers import Slots
from meta_impala.algorithm.window_gradient import (
    Carried,
    WindowGradient,
    WindowState,
    back_through,
    begin_backward,
)
from meta_impala.config import UpdateSettings
from meta_impala.learner.group import LearnerGroup
from meta_impala.learner.state import LearnerState
from meta_impala.learner.update_parts import read
from meta_impala.learner.window_parts import WindowFactory

# (J' and dJ'/dx, agent steps of τ') -> statistics, whether x is moved, new η.
Apply = Callable[[WindowGradient, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]


def _spec(variable: tf.Variable) -> tf.TensorSpec:
    return tf.TensorSpec(variable.shape, variable.dtype)


class WindowStep:
    """Takes the meta step of a full window.

    Attributes:
      functions: what it is traced in.
    """

    def __init__(
        self,
        settings: UpdateSettings,
        windows: WindowFactory,
        state: LearnerState,
        apply: Apply,
        group: LearnerGroup,
        of_meta: Sequence[Any],
    ) -> None:
        """Args:
        settings: resolved; of several learners this one's share.
        windows: makes the updates of the window and J'.
        state: with a window.
        apply: what follows once the meta-gradient is there.
        group: the learners.
        of_meta: signature of the batches ahead and of the order of columns.
        """
        self._settings, self._windows, self._state = settings, windows, state
        self._parts, self._apply = windows.parts, apply
        self._dtype = state.network.dtype
        self._is_nested = settings.meta_gradient_mode == "nested_tapes"
        if self._is_nested:
            self._whole = group.function(self._nested, of_meta)
            self.functions = [self._whole]
            return
        window = state.window
        assert window is not None
        parameters = [_spec(variable) for variable in state.network.trainable_variables]
        slots = {name: [_spec(v) for v in of_name] for name, of_name in state.slots.items()}
        numbers = [spec for spec in tf.nest.flatten(slots) if spec.dtype.is_floating]
        logits = [_spec(variable) for variable in state.logits]
        batch = Unroll(*(_spec(variable) for variable in window.batches[0]))
        scalar = tf.TensorSpec([], self._dtype)
        of_update = [
            WindowState(parameters, slots, parameters),
            batch,
            tf.TensorSpec([], tf.float32),
            Carried(parameters, numbers, logits),
        ]
        self._begin = group.function(self._begun, of_meta)
        self._back = group.function(self._gone_back, of_update)
        self._back_first = group.function(self._gone_back_first, of_update)
        moments = [_spec(variable) for variable in state.moments]
        self._end = group.function(self._ended, [scalar, moments, logits, scalar])
        self.functions = [self._begin, self._back, self._back_first, self._end]

    def build(self) -> None:
        """Traces the graphs."""
        for function in self.functions:
            function.get_concrete_function()

    def __call__(
        self, ahead: tuple[Unroll, ...], order: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The meta step: its statistics, whether it is applied, new η.

        Args:
          ahead: the batches of a bootstrapped target, and that of τ'.
          order: a permutation of the columns.
        """
        if self._is_nested:
            return self._whole(ahead, order)
        loss, moments, num_meta_rows, carried = self._begin(ahead, order)
        carried = self._through_all(carried, self._back, self._back_first)
        return self._end(loss, moments, carried.meta_gradient, num_meta_rows)

    def gradient(self, ahead: tuple[Unroll, ...], order: tf.Tensor) -> WindowGradient:
        """The meta-gradient alone, by the same functions."""
        if self._is_nested:
            return self._nested_gradient(ahead, order)[0]
        loss, moments, _, carried = self._begun(ahead, order)
        carried = self._through_all(carried, self._gone_back, self._gone_back_first)
        return WindowGradient(loss, moments, carried.meta_gradient)

    def _through_all(
        self,
        carried: Carried,
        back: Callable[..., Carried],
        back_first: Callable[..., Carried],
    ) -> Carried:
        window = self._state.window
        assert window is not None
        rates = window.learning_rates.read_value()
        for k in reversed(range(window.length)):
            function = back if k else back_first
            carried = function(window.state(k), window.unroll(k), rates[k], carried)
        return carried

    # What the functions are of.

    def _last(self) -> tuple[list[tf.Tensor], Slots, list[tf.Tensor]]:
        """θ_K, s_K and x."""
        state = self._state
        slots = {name: read(list(of_name)) for name, of_name in state.slots.items()}
        return read(list(state.network.trainable_variables)), slots, read(state.logits)

    def _split(self, ahead: tuple[Unroll, ...], order: tf.Tensor) -> tuple[list[Any], tf.Tensor]:
        """The batches ahead, the last of them τ', and the agent steps of τ'."""
        *before, other = map(self._parts.trajectories, ahead)
        # Each τ_k was learned from already: only τ' is selected.
        _, meta_batch = self._parts.split(other, other, order)
        return [*before, meta_batch], tf.reduce_sum(meta_batch.transitions.step_mask)

    def _nested_gradient(
        self, ahead: tuple[Unroll, ...], order: tf.Tensor
    ) -> tuple[WindowGradient, tf.Tensor]:
        window = self._state.window
        assert window is not None
        batches, num_meta_rows = self._split(ahead, order)
        parameters, slots, x = self._last()
        found = self._windows.gradient(
            [window.state(k) for k in range(window.length)],
            [self._parts.trajectories(window.unroll(k)) for k in range(window.length)],
            tf.unstack(tf.cast(window.learning_rates.read_value(), self._dtype)),
            (parameters, slots),
            x,
            batches,
        )
        return found, num_meta_rows

    def _nested(
        self, ahead: tuple[Unroll, ...], order: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return self._apply(*self._nested_gradient(ahead, order))

    def _begun(
        self, ahead: tuple[Unroll, ...], order: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor, Carried]:
        """J', its moving moments, the agent steps of τ', and what goes back."""
        window = self._state.window
        assert window is not None
        batches, num_meta_rows = self._split(ahead, order)
        parameters, slots, x = self._last()
        objective = self._windows.meta_objective(
            window.state(0).parameters,
            (parameters, slots),
            x,
            batches,
            tf.cast(window.learning_rates[-1], self._dtype),
        )
        loss, moments, carried = begin_backward(
            parameters,
            slots,
            x,
            objective,
            number=self._settings.micro_batches,
            reduce=self._parts.reduce,
        )
        return loss, list(moments or []), num_meta_rows, carried

    def _gone_back(
        self,
        state: WindowState,
        batch: Unroll,
        rate: tf.Tensor,
        carried: Carried,
        *,
        is_first: bool = False,
    ) -> Carried:
        update = self._windows.update(
            self._parts.trajectories(batch),
            tf.cast(rate, self._dtype),
            follow_targets=not is_first,
        )
        return back_through(
            update,
            state,
            read(self._state.logits),
            carried,
            reduce=self._parts.reduce,
            is_first=is_first,
        )

    def _gone_back_first(
        self, state: WindowState, batch: Unroll, rate: tf.Tensor, carried: Carried
    ) -> Carried:
        return self._gone_back(state, batch, rate, carried, is_first=True)

    def _ended(
        self,
        loss: tf.Tensor,
        moments: list[tf.Tensor],
        meta_gradient: list[tf.Tensor],
        num_meta_rows: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return self._apply(WindowGradient(loss, moments, meta_gradient), num_meta_rows)
