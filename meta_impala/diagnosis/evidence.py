"""What is known of a run: its settings, its metrics, and what a few games show. No TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from meta_impala.config import Config
from meta_impala.config.hyper_parameters import GAMMA, LAMBDA

# With fewer updates no check is meaningful: a healthy run on Catch needs about as many before its
# return rises.
FEWEST_UPDATES = 300
FEWEST_ROWS = 4
# The present state is that of the last quarter of the rows; a single row is too noisy.
_WINDOW_SHARE = 0.25
# Of --total_frames. Pong with the preset laptop reaches 0 after 16 to 44 % of its frames: a return
# that has not risen after a tenth says little.
YOUNG = 0.1
# A rise of the return counts from so many standard deviations of its noise on.
_CLEAR_RISE = 3.0
_FEWEST_FOR_A_LINE = 6
_SIGMA_OF_MAD = 1.4826  # of a normal distribution


class BatchEvidence(NamedTuple):
    """What a few games with the newest checkpoint show.

    Attributes:
      checkpoint: that played.
      steps: agent steps played.
      num_actions: A.
      entropy: mean of the policy, nats.
      explained_variance: 1 − Var(G − V)/Var(G) of the critic, G the discounted return that
        followed; NaN if all G were the same, or too few were seen.
      dead_units: share of the units of the last hidden layer that were 0 in every state.
      hidden_units: how many it has.
      rewards: `[k]`, the raw rewards that were not 0.
      terminations: episodes that ended for the learner (with lost lives, where those count).
      games: full games that ended.
      truncations: how many of these a time limit cut.
    """

    checkpoint: str
    steps: int
    num_actions: int
    entropy: float
    explained_variance: float
    dead_units: float
    hidden_units: int
    rewards: np.ndarray
    terminations: int
    games: int
    truncations: int


class Progress(NamedTuple):
    """How the return moved.

    Attributes:
      first: the first row that has one.
      last: median of the last quarter of the rows.
      has_risen: whether it rose by more than its noise; None if it is too early to say.
    """

    first: float
    last: float
    has_risen: bool | None


class Evidence(NamedTuple):
    """The input of all checks.

    Attributes:
      config: of the run.
      status: of `run_status.read_status`.
      metrics: column -> `[rows]`, NaN where a cell is empty.
      time_limit: of a game, in environment frames; None if there is none, or it is unknown.
      batch: what a few games show; None if none were played.
    """

    config: Config
    status: Mapping[str, Any]
    metrics: Mapping[str, np.ndarray]
    time_limit: int | None = None
    batch: BatchEvidence | None = None

    def column(self, name: str) -> np.ndarray:
        """The finite values of a column."""
        values = self.metrics.get(name, np.empty(0))
        return values[np.isfinite(values)]

    def window(self, name: str) -> np.ndarray:
        """The finite values of a column in the last quarter of the rows, at least one row."""
        values = self.metrics.get(name, np.empty(0))
        recent = values[-max(1, math.ceil(_WINDOW_SHARE * len(values))) :]
        return recent[np.isfinite(recent)]

    def mean(self, name: str) -> float:
        """Mean of a column over the last quarter; NaN if it is empty there."""
        recent = self.window(name)
        return float(recent.mean()) if recent.size else math.nan

    def last(self, name: str) -> float:
        """The last value of a column; NaN if there is none."""
        values = self.column(name)
        return float(values[-1]) if values.size else math.nan

    def value(self, name: str) -> float:
        """A hyper-parameter as it is now: of what is learned or scheduled, its recent mean.

        Args:
          name: of a setting that is a row of the table of hyper-parameters.
        """
        now = self.mean(name) if name in self.config.varied else math.nan
        return now if math.isfinite(now) else float(getattr(self.config, name))

    @property
    def is_early(self) -> bool:
        """Whether there are too few updates or rows for the checks."""
        return bool(self.too_few)

    @property
    def too_few(self) -> tuple[str, ...]:
        """What there is too little of for the checks, in words."""
        updates, rows = self.last("updates"), len(self.metrics.get("frames", ()))
        few = {
            # Of a table without rows nothing is known of the updates.
            f"fewer than {FEWEST_UPDATES} updates": updates < FEWEST_UPDATES
            or (math.isnan(updates) and rows >= FEWEST_ROWS),
            f"fewer than {FEWEST_ROWS} rows of metrics": rows < FEWEST_ROWS,
        }
        return tuple(words for words, holds in few.items() if holds)

    @property
    def share_of_run(self) -> float:
        """Of `--total_frames`, that were trained; NaN if it is not known."""
        return self.last("frames") / self.config.total_frames

    @property
    def progress(self) -> Progress:
        """How the return moved over the run.

        The noise is that of the last half of the rows around a straight line, by the median
        absolute deviation, which a few bad rows do not inflate.
        """
        returns, recent = self.column("episode_return"), self.window("episode_return")
        if not returns.size or not recent.size:
            return Progress(math.nan, math.nan, None)
        first, last = float(returns[0]), float(np.median(recent))
        if self.is_early or len(returns) < FEWEST_ROWS:
            return Progress(first, last, None)
        noise = _noise(returns[len(returns) // 2 :])
        return Progress(first, last, last > first and last - first > _CLEAR_RISE * noise)


def _noise(values: np.ndarray) -> float:
    """Standard deviation around a straight line, or around the median of fewer than 6 values."""
    residuals = values - np.median(values)
    if len(values) >= _FEWEST_FOR_A_LINE:
        places = np.arange(len(values), dtype=np.float64)
        residuals = values - np.polyval(np.polyfit(places, values, 1), places)
    return _SIGMA_OF_MAD * float(np.median(np.abs(residuals - np.median(residuals))))


class Finding(NamedTuple):
    """Something that keeps a run from learning.

    Attributes:
      name: of the check.
      sentence: what was found, why it matters, and which flag changes it.
      flags: settings to change, most promising first.
      value: what was measured.
      threshold: beyond which it is reported.
    """

    name: str
    sentence: str
    flags: tuple[str, ...]
    value: float
    threshold: float


class Lever(NamedTuple):
    """What changes a hyper-parameter.

    Attributes:
      words: for a sentence, with the present value.
      flag: the setting.
    """

    words: str
    flag: str


# Schedule -> what decides the value of a varied hyper-parameter, for γ and λ and for the others.
_DECIDES = {
    "learned": ("{0}_max", "meta_parameter_ranges"),
    "fixed": ("{0}", "meta_parameter_starts"),
    "random": ("eta_random_{0}", "eta_random_ranges"),
    "linear": ("eta_linear_{0}", "eta_linear_ends"),
    "mixture": ("eta_mixture", "eta_mixture"),
    "replay": ("eta_schedule_file", "eta_schedule_file"),
}


def lever(evidence: Evidence, name: str) -> Lever:
    """What changes a hyper-parameter: its setting, or what decides it where it varies.

    Args:
      evidence: of the run.
      name: of a setting that is a row of the table of hyper-parameters.
    """
    now = f"now {evidence.value(name):.4g}"
    if name not in evidence.config.varied:
        return Lever(f"--{name} ({now})", name)
    schedule = evidence.config.eta_schedule
    flag = _DECIDES[schedule][name not in (GAMMA, LAMBDA)].format(name)
    return Lever(f"{name} ({schedule}, {now}) by --{flag}", flag)
