"""The η of an unroll: the learned one, or that of a control.

The reviewer of Xu et al. 2018 asks whether the gain comes from adapting η or from learning at
several η at once. In the control every unroll is played, and learned from, at an η drawn for it,
which the network is fed; nothing is adapted, all else is equal. Two more controls separate *that* η
moves from *why*: the γ and λ of another run replayed, and a straight line between two values. The
network is fed them as in the learned run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from meta_impala.algorithm.functions_of_frames import Line, StepFunction
from meta_impala.algorithm.meta_parameters import GAMMA, LAMBDA, logit

NAMES = (GAMMA, LAMBDA)


@dataclasses.dataclass(frozen=True)
class EtaSchedule:
    """Chooses η for the environments of an actor, unroll by unroll.

    Attributes:
      pairs: a set of (γ, λ), of which each unroll takes one.
      draws: name -> (low, high), between which it is drawn, its logit uniformly.
      of_frames: γ and λ as a function of the frames learned from.

    Without any of them every unroll is played at the snapshot's η.
    """

    pairs: Sequence[tuple[float, float]] = ()
    draws: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    of_frames: StepFunction | Line | None = None

    @property
    def is_drawn(self) -> bool:
        """Whether η differs from unroll to unroll."""
        return bool(self.pairs or self.draws)

    @property
    def follows_frames(self) -> bool:
        """Whether γ and λ are a function of frames (of the learner's, at the update)."""
        return self.of_frames is not None

    def at(self, frames: int) -> np.ndarray:
        """`[2]` float32: γ and λ at these frames; zeros if they do not depend on frames."""
        if self.of_frames is None:
            return np.zeros([2], np.float32)
        return np.array(self.of_frames(frames), np.float32)

    def of_unroll(self, current: np.ndarray, num_envs: int, seed: Sequence[int]) -> np.ndarray:
        """The network's input of η in one unroll.

        Args:
          current: the snapshot's, `[E]`: γ, λ, and whatever else is fed.
          num_envs: N.
          seed: non-negative numbers, others for every unroll.

        Returns:
          `[N, E]` float32.
        """
        eta = np.tile(current, (num_envs, 1)).astype(np.float32)
        if not self.is_drawn:
            return eta
        generator = np.random.default_rng(list(seed))
        if self.pairs:
            chosen = generator.integers(len(self.pairs), size=num_envs)
            eta[:, :2] = np.array(self.pairs)[chosen]
        for index, name in enumerate(NAMES):
            if name in self.draws:
                low, high = map(logit, self.draws[name])
                eta[:, index] = 1.0 / (1.0 + np.exp(-generator.uniform(low, high, num_envs)))
        return eta


NO_DRAWS = EtaSchedule()
