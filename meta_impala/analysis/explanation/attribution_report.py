"""Statistics of the samples of a meta-gradient: the numbers of `explain.json`.

Everything is given as a *push*, −dJ'/dx: above 0 the meta-parameter goes up. x is its logit, which
is what the meta-optimiser moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from meta_impala.algorithm.attribution import SPLIT_PLACES, TIMED_PLACES, UPDATE_RULE
from meta_impala.algorithm.objectives import (
    EMBEDDING,
    IMPORTANCE_WEIGHTS,
    IMPORTANCE_WEIGHTS_PLACE,
    NETWORK,
    PATHS,
    RETURNS,
    TARGET_VALUES,
)
from meta_impala.analysis.explanation import samples as sampling
from meta_impala.analysis.explanation.samples import Sample
from meta_impala.config import Config
from meta_impala.config.hyper_parameters import TABLE
from meta_impala.config.metric_columns import of_head
from meta_impala.errors import UserError

SYMBOLS = {name: row.symbol for name, row in TABLE.items()}
# A mean of fewer standard errors than this is not significantly different from 0.
CLEAR = 2.0
_PATH_OF = {
    NETWORK: EMBEDDING,
    TARGET_VALUES: EMBEDDING,
    IMPORTANCE_WEIGHTS_PLACE: IMPORTANCE_WEIGHTS,
}
_CONSECUTIVE = "one update and the next, each on the meta batch of training"


def path_of(place: str) -> str:
    """The path of the meta-gradient, as in `--meta_gradient_paths`, that a place lies on."""
    return _PATH_OF.get(place, RETURNS)


class Estimate(NamedTuple):
    """A mean over batches, its standard error (None below two of them), and how many there are."""

    mean: float | None
    standard_error: float | None
    batches: int

    @property
    def t(self) -> float | None:
        """The mean in standard errors."""
        return self.mean / self.standard_error if self.mean and self.standard_error else None

    def to_json(self) -> dict[str, float | int | None]:
        return {**self._asdict(), "t": self.t}


def estimate(values: Iterable[float]) -> Estimate:
    """Mean and standard error of the finite values, taken as independent."""
    kept = np.asarray(list(values), np.float64)
    kept = kept[np.isfinite(kept)]
    if not kept.size:
        return Estimate(None, None, 0)
    error = float(kept.std(ddof=1) / np.sqrt(kept.size)) if kept.size > 1 else None
    return Estimate(float(kept.mean()), error, int(kept.size))


class Heading(NamedTuple):
    """The direction in which one meta-parameter moves.

    Attributes:
      value: what it is now; the mean over states if it belongs to the state; NaN if it is finite in
        no batch.
      push: −dJ'/dx.
      up: in how many batches the push is finite and above 0.
      down: in how many it is finite and below.
    """

    value: float
    push: Estimate
    up: int
    down: int

    @property
    def direction(self) -> str:
        """ "up" or "down", by the mean; "nowhere" if the push is zero."""
        if not self.push.mean:
            return "nowhere"
        return "up" if self.push.mean > 0 else "down"

    @property
    def is_clear(self) -> bool:
        """Whether the mean differs significantly from 0."""
        t = self.push.t
        return t is not None and abs(t) >= CLEAR


class Agreement(NamedTuple):
    """Agreement of two meta batches: cosines of their ∇_θ' J' and of their dJ'/dx."""

    pair: str
    directions: Estimate
    meta_gradients: Estimate


class Report(NamedTuple):
    """Statistics of the samples of a run.

    Attributes:
      learned: names of the meta-parameters, n of them.
      pushes: `[K, n]`, of the batches.
      open_places: where η acts at all along the configured paths.
      headings: name -> `Heading`.
      headings_of_heads: the same of each auxiliary head, by its own names (`of_head`).
      by_place: name -> place -> push.
      by_time: name -> place -> push along the η of each of the T states arrived in.
      by_meta_batch: meta batch -> name -> push.
      agreements: of pairs of meta batches, and of consecutive updates.
      excess: how much better the next unroll of the same games agrees with τ than other games do.
      sizes: means of norms and losses.
    """

    learned: tuple[str, ...]
    pushes: np.ndarray
    open_places: tuple[str, ...]
    headings: dict[str, Heading]
    headings_of_heads: dict[str, Heading]
    by_place: dict[str, dict[str, Estimate]]
    by_time: dict[str, dict[str, list[Estimate]]]
    by_meta_batch: dict[str, dict[str, Estimate]]
    agreements: list[Agreement]
    excess: Estimate
    sizes: dict[str, Estimate]


def report(config: Config, samples: Sequence[Sample]) -> Report:
    """Means and standard errors of at least one sample.

    Raises:
      UserError: if the meta-gradient is finite in none.
    """
    learned = config.learned
    by_place = -np.array([sample.by_place for sample in samples])  # [K, P, n]
    by_time = -np.array([sample.by_time for sample in samples])  # [K, 2, T, n]
    pushes = by_place.sum(axis=1)
    _refuse_nothing_finite(pushes)
    headings = {
        name: _heading([sample.eta[index] for sample in samples], pushes[:, index])
        for index, name in enumerate(learned)
    }
    headings_of_heads = {
        of_head(name, head + 2): _heading(
            [sample.eta_of_heads[head, index] for sample in samples],
            -np.array([sample.of_heads[head, index] for sample in samples]),
        )
        for head in range(config.auxiliary_heads)
        for index, name in enumerate(learned)
    }
    return Report(
        learned=learned,
        pushes=pushes,
        open_places=tuple(
            place
            for place in SPLIT_PLACES
            if (place != UPDATE_RULE or _is_open(by_place[:, SPLIT_PLACES.index(place)]))
            and PATHS.index(path_of(place)) <= PATHS.index(config.meta_gradient_paths)
        ),
        headings=headings,
        headings_of_heads=headings_of_heads,
        by_place={
            name: {place: estimate(by_place[:, p, i]) for p, place in enumerate(SPLIT_PLACES)}
            for i, name in enumerate(learned)
        },
        by_time={
            name: {
                place: [estimate(column) for column in by_time[:, p, :, i].T]
                for p, place in enumerate(TIMED_PLACES)
            }
            for i, name in enumerate(learned)
        },
        by_meta_batch={
            meta_batch: {
                name: estimate(-sample.meta_gradients[meta_batch][i] for sample in samples)
                for i, name in enumerate(learned)
            }
            for meta_batch in samples[0].meta_gradients
        },
        agreements=_agreements(samples, pushes),
        excess=estimate(
            sample.cosines[sampling.ITSELF, sampling.NEXT]
            - sample.cosines[sampling.ITSELF, sampling.OTHERS]
            for sample in samples
        ),
        sizes={
            "‖dJ'/dx‖": estimate(np.linalg.norm(pushes, axis=1)),
            "‖∇_θ' J'‖": estimate(sample.sensitivity for sample in samples),
            "‖∇_θ J‖": estimate(sample.gradient_norm for sample in samples),
            "clip coefficient": estimate(sample.clip_coefficient for sample in samples),
            "J' per agent step": estimate(sample.meta_loss for sample in samples),
        },
    )


def _is_open(pushes: np.ndarray) -> bool:
    """Whether any push that is a number is not 0."""
    return bool(np.nan_to_num(pushes, nan=0.0, posinf=0.0, neginf=0.0).any())


def _refuse_nothing_finite(pushes: np.ndarray) -> None:
    if not np.isfinite(pushes).all(axis=1).any():
        raise UserError(
            "the meta-gradient is finite in none of the batches, so there is nothing to explain; "
            "observations and rewards of the environment must be finite numbers"
        )


def _heading(values: Sequence[float], pushes: np.ndarray) -> Heading:
    value = estimate(values).mean
    value = math.nan if value is None else value
    known = pushes[np.isfinite(pushes)]
    return Heading(value, estimate(known), int((known > 0).sum()), int((known < 0).sum()))


def _agreements(samples: Sequence[Sample], pushes: np.ndarray) -> list[Agreement]:
    agreements = [
        Agreement(
            f"{one}, {other}",
            estimate(sample.cosines[one, other] for sample in samples),
            estimate(
                sampling.cosine(sample.meta_gradients[one], sample.meta_gradients[other])
                for sample in samples
            ),
        )
        for one, other in samples[0].cosines
    ]
    consecutive = Agreement(
        _CONSECUTIVE,
        estimate(sample.cosine_with_last for sample in samples),
        estimate(map(sampling.cosine, pushes[:-1], pushes[1:])),
    )
    return [*agreements, consecutive]


def to_json(result: Report) -> dict[str, Any]:
    """The same as plain numbers; one may be not finite (`json_document` writes null)."""
    return {
        "heading": {
            name: {
                "value": heading.value,
                "push": heading.push.to_json(),
                "batches_up": heading.up,
                "batches_down": heading.down,
                "direction": heading.direction,
                "is_clear": heading.is_clear,
            }
            for name, heading in {**result.headings, **result.headings_of_heads}.items()
        },
        "by_place": {
            name: {place: push.to_json() for place, push in places.items()}
            for name, places in result.by_place.items()
        },
        "by_time": {
            name: {place: [push.to_json() for push in pushes] for place, pushes in places.items()}
            for name, places in result.by_time.items()
        },
        "by_meta_batch": {
            meta_batch: {name: push.to_json() for name, push in names.items()}
            for meta_batch, names in result.by_meta_batch.items()
        },
        "cosines": [
            {
                "pair": agreement.pair,
                "of_parameter_gradients": agreement.directions.to_json(),
                "of_meta_gradients": agreement.meta_gradients.to_json(),
            }
            for agreement in result.agreements
        ],
        "same_games_minus_other_games": result.excess.to_json(),
        "sizes": {name: size.to_json() for name, size in result.sizes.items()},
        "push_per_batch": dict(zip(result.learned, result.pushes.T.tolist(), strict=True)),
    }
