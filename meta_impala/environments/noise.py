"""Noise: a contextual bandit whose rewards are mixed with noise that no action influences.

One of the tasks whose best discount is known: it is 0, because no action matters beyond its own
reward, and any γ above 0 only adds the noise of later steps to the return of an answer.
"""

from typing import Any

import gymnasium
import numpy as np

from meta_impala.environments.boards import BoardTask
from meta_impala.environments.built_in import (
    EVALUATION_ARGUMENTS,
    NOISE_EVALUATION_ID,
    NOISE_ID,
)

CONTEXTS = 4


class Noise(BoardTask):
    """An episode of `length` steps, 20 by default, an even number. Four actions.

    At even steps one of four symbols is shown, drawn uniformly; the action of the same number pays
    `answer_reward` (0.2), the others pay 0. At odd steps the reward is drawn from N(0, `sigma`²),
    with `sigma` 1, whatever the action. No action changes what comes later.

    Best discount: 0. The return of an answer at even step t is its own reward plus Σ γ^(2i+1) n_i
    over the (length − t) / 2 noise draws that follow, so the ranking of the answers is the same for
    every γ, while the variance of the return, σ² Σ γ^(4i+2), grows with γ (`return_variance`).

    An episode's return is 0.2 times the number of right answers, plus noise of standard deviation
    σ √(length / 2) = 3.16. So agents are scored in the same task with `sigma` 0
    (`meta_impala/NoiseEvaluation-v0`), where return / 2.0 is exactly the share of right answers.

    Observations: `[2, 5]` float32, one-hot: row 0 with the symbol's column at even steps, row 1 and
    the last column at odd steps. The noise is not shown.
    """

    def __init__(
        self,
        length: int = 20,
        answer_reward: float = 0.2,
        sigma: float = 1.0,
        render_mode: str | None = None,
    ) -> None:
        if length < 2 or length % 2 or sigma < 0.0:
            raise ValueError(
                f"length={length}, sigma={sigma}: must be an even length >= 2 and sigma >= 0"
            )
        super().__init__((2, CONTEXTS + 1), CONTEXTS, render_mode)
        self._length = length
        self._answer_reward = answer_reward
        self._sigma = sigma
        self._time = 0
        self._symbol = 0

    def return_variance(self, gamma: float, step: int = 0) -> float:
        """Variance of the γ-discounted return from even step `step` on, given all answers."""
        draws = np.arange((self._length - step) // 2)
        return float(self._sigma**2 * np.sum(gamma ** (4.0 * draws + 2.0)))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        self._symbol = int(self.np_random.integers(CONTEXTS))
        return self._board(), {}

    def step(
        self, action: int | np.integer
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._time % 2 == 0:
            reward = self._answer_reward if int(action) == self._symbol else 0.0
        else:
            reward = self._sigma * float(self.np_random.normal())
            self._symbol = int(self.np_random.integers(CONTEXTS))
        self._time += 1
        return self._board(), reward, self._time == self._length, False, {}

    def _board(self) -> np.ndarray:
        board = np.zeros((2, CONTEXTS + 1), np.float32)
        if self._time % 2 == 0:
            board[0, self._symbol] = 1.0
        else:
            board[1, CONTEXTS] = 1.0
        return board


_ENTRY_POINT = "meta_impala.environments.noise:Noise"
gymnasium.register(id=NOISE_ID, entry_point=_ENTRY_POINT)
gymnasium.register(
    id=NOISE_EVALUATION_ID,
    entry_point=_ENTRY_POINT,
    kwargs=EVALUATION_ARGUMENTS[NOISE_EVALUATION_ID],
)
