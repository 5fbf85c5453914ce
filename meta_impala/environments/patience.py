"""Patience: a small reward now or a large one at the end of the episode.

One of the tasks whose best discount is known. Only the first action matters; a discount that is too
low makes the small reward look better than the large one.
"""

from typing import Any

import gymnasium
import numpy as np

from meta_impala.environments.boards import BoardTask
from meta_impala.environments.built_in import PATIENCE_ID


class Patience(BoardTask):
    """An episode of `length` steps, 8 by default. Two actions; only the first one matters.

    Action 0 at step 0 pays `early` (0.5) at once. Action 1 pays `late` (1.0) at the last step,
    `length − 1` steps later. All other rewards are 0.

    Best discount: at step 0 the two actions are worth `early` and γ^(length − 1) · `late`. So
    waiting is better, and the undiscounted return is 1.0 and not 0.5, exactly if
    γ > (early / late)^(1 / (length − 1)) = 0.5^(1/7) = 0.906 (`least_patient_discount`). The
    rewards are deterministic: any γ above it is right.

    Observations: `[length + 1, 3]` float32, one-hot. The row is the number of steps made; the
    column is 0 before the choice, then 1 or 2 for action 0 or 1.
    """

    def __init__(
        self,
        length: int = 8,
        early: float = 0.5,
        late: float = 1.0,
        render_mode: str | None = None,
    ) -> None:
        if length < 2 or not 0.0 < early < late:
            raise ValueError(
                f"length={length}, early={early}, late={late}: must be length >= 2 and "
                "0 < early < late"
            )
        super().__init__((length + 1, 3), 2, render_mode)
        self._length = length
        self._early = early
        self._late = late
        self._time = 0
        self._choice: int | None = None

    @property
    def least_patient_discount(self) -> float:
        """The γ at which both choices are worth the same; waiting is better above it."""
        return (self._early / self._late) ** (1.0 / (self._length - 1))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        self._choice = None
        return self._board(), {}

    def step(
        self, action: int | np.integer
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = 0.0
        if self._choice is None:
            self._choice = int(action)
            if self._choice == 0:
                reward = self._early
        self._time += 1
        ends = self._time == self._length
        if ends and self._choice == 1:
            reward = self._late
        return self._board(), reward, ends, False, {}

    def _board(self) -> np.ndarray:
        board = np.zeros((self._length + 1, 3), np.float32)
        board[self._time, 0 if self._choice is None else 1 + self._choice] = 1.0
        return board


gymnasium.register(id=PATIENCE_ID, entry_point="meta_impala.environments.patience:Patience")
