"""What η an unroll is played with: the learned one, or the draws of the multi-task control.

The reviewer of Xu et al. 2018 asks whether the gain comes from adapting η or from learning at
several η at once. In the control every unroll is played, and learned from, at an η drawn for it,
which the network is fed; nothing is adapted, all else is equal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from meta_impala.algorithm.meta_parameters import NAMES, logit


@dataclasses.dataclass(frozen=True)
class EtaSchedule:
    """Chooses η for the environments of an actor, unroll by unroll.

    Attributes:
      pairs: a set of (γ, λ), of which each unroll takes one.
      draws: name -> (low, high), between which it is drawn, its logit uniformly.
      per_state: whether η is a function of the state, and the network knows it.

    With no pairs and no draws every unroll is played at the snapshot's η.
    """

    pairs: Sequence[tuple[float, float]] = ()
    draws: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    per_state: bool = False

    @property
    def is_drawn(self) -> bool:
        """Whether η differs from unroll to unroll."""
        return bool(self.pairs or self.draws)

    def of_unroll(
        self, current: np.ndarray, num_envs: int, seed: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """η of one unroll.

        Args:
          current: the snapshot's: `[2]`, or `[F+1, n]` if it is a function of the state.
          num_envs: N.
          seed: non-negative numbers, others for every unroll.

        Returns:
          What the policy is fed (`[N, 2]` or `current`), and what travels with the unroll
          (`[N, 2]`, zeros if η is a function of the state).
        """
        if self.per_state:
            return current, np.zeros([num_envs, 2], np.float32)
        eta = np.tile(current, (num_envs, 1)).astype(np.float32)
        if not self.is_drawn:
            return eta, eta
        generator = np.random.default_rng(list(seed))
        if self.pairs:
            eta[:] = np.array(self.pairs)[generator.integers(len(self.pairs), size=num_envs)]
        for index, name in enumerate(NAMES):
            if name in self.draws:
                low, high = map(logit, self.draws[name])
                eta[:, index] = 1.0 / (1.0 + np.exp(-generator.uniform(low, high, num_envs)))
        return eta, eta


EVERY_UNROLL_ALIKE = EtaSchedule()
