"""The η of an unroll: the learned one, or that of a control.

A published review of Xu et al. 2018 asks whether the gain comes from adapting η or from learning at
several η at once. In the control every unroll is played, and learned from, at an η drawn for it,
which the network is fed; nothing is adapted, all else is equal. Two more controls separate *that* η
moves from *why*: the η of another run replayed, and a straight line between two values. The network
is fed them as in the learned run.

What is drawn for an unroll travels with it (`Unroll.eta`), since it acts in the loss of that unroll
alone. A function of frames is one η for the whole update, so it may also be of what acts on the
update as a whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from meta_impala.algorithm.functions_of_frames import Line, StepFunction
from meta_impala.algorithm.meta_parameters import GAMMA, LAMBDA, logit


@dataclasses.dataclass(frozen=True)
class EtaSchedule:
    """Chooses η for the environments of an actor, unroll by unroll, or for an update.

    Attributes:
      names: S names of what it gives; γ and λ first.
      fed: E names of the network's inputs of η; without draws and function of frames others
        than `names` may be fed.
      ranges: name -> (low, high) of all but γ and λ.
      members: a set of η, `[S]` each, of which each unroll takes one.
      draws: name -> (low, high), between which it is drawn, the logit of its place in its range
        uniformly.
      of_frames: η as a function of the frames learned from.

    Without any of the last three every unroll is played at the snapshot's η.
    """

    names: tuple[str, ...] = (GAMMA, LAMBDA)
    fed: tuple[str, ...] = (GAMMA, LAMBDA)
    ranges: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    members: Sequence[tuple[float, ...]] = ()
    draws: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    of_frames: StepFunction | Line | None = None

    @property
    def is_drawn(self) -> bool:
        """Whether η differs from unroll to unroll."""
        return bool(self.members or self.draws)

    @property
    def follows_frames(self) -> bool:
        """Whether η is a function of frames (of the learner's, at the update)."""
        return self.of_frames is not None

    @property
    def num_of_unroll(self) -> int:
        """How many entries of η travel with an unroll: γ and λ, and whatever else is drawn."""
        return len(self.names) if self.is_drawn else 2

    def at(self, frames: int) -> np.ndarray:
        """`[S]` float32: η at these frames; zeros if it does not depend on frames."""
        if self.of_frames is None:
            return np.zeros([len(self.names)], np.float32)
        return np.array(self.of_frames(frames), np.float32)

    def fed_at(self, frames: int) -> np.ndarray:
        """`[E]` float32: the network's input of η at these frames."""
        return np.concatenate(self.fed_of(self.at(frames)[:, np.newaxis]))

    def fed_of(self, eta: Sequence[Any] | np.ndarray) -> list[Any]:
        """The network's inputs of η: γ and λ as they are, the others relative to their range.

        Args:
          eta: values of `names`, each a number, an array or a tensor.
        """
        fed = []
        for name in self.fed:
            value = eta[self.names.index(name)]
            if name in self.ranges:
                low, high = self.ranges[name]
                value = (value - low) / (high - low)
            fed.append(value)
        return fed

    def of_unroll(
        self, current: np.ndarray, num_envs: int, seed: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """η in one unroll.

        Args:
          current: the snapshot's input of the network, `[E]`: γ, λ, and whatever else is fed.
          num_envs: N.
          seed: non-negative numbers, others for every unroll.

        Returns:
          The network's input `[N, E]`, and what travels with the unroll, `[N, num_of_unroll]`;
          both float32.
        """
        if not self.is_drawn:
            fed = np.tile(current, (num_envs, 1)).astype(np.float32)
            return fed, fed[:, :2]
        generator = np.random.default_rng(list(seed))
        eta = np.zeros([num_envs, len(self.names)], np.float32)
        eta[:, :2] = current[:2]
        if self.members:
            eta[:] = np.array(self.members)[generator.integers(len(self.members), size=num_envs)]
        for index, name in enumerate(self.names):
            if name in self.draws:
                low, high = self.ranges.get(name, (0.0, 1.0))
                first, last = (logit((end - low) / (high - low)) for end in self.draws[name])
                place = 1.0 / (1.0 + np.exp(-generator.uniform(first, last, num_envs)))
                eta[:, index] = low + (high - low) * place
        return np.stack(self.fed_of(eta.T), axis=-1), eta


NO_DRAWS = EtaSchedule()
