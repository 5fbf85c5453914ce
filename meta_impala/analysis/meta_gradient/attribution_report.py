"""What the samples of a meta-gradient amount to: numbers for `explain.json`, and a text to read.

Everything is told as a *push*, −dJ'/dx: above 0 the meta-parameter goes up. x is its logit, which
is what the meta-optimiser moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from meta_impala.algorithm.attribution import TIMED_PLACES
from meta_impala.algorithm.objectives import (
    EMBEDDING,
    IMPORTANCE_WEIGHTS,
    NETWORK,
    PATHS,
    PLACES,
    RATIOS,
    RETURNS,
    TARGET_VALUES,
)
from meta_impala.analysis.meta_gradient import samples as sampling
from meta_impala.analysis.meta_gradient.samples import Sample
from meta_impala.config import Config

SYMBOLS = {"gamma": "γ", "lambda": "λ"}
# Below this many standard errors a mean is not told from 0.
CLEAR = 2.0
_QUARTERS = 4
_PATH_OF = {NETWORK: EMBEDDING, TARGET_VALUES: EMBEDDING, RATIOS: IMPORTANCE_WEIGHTS}
_CONSECUTIVE = "one update and the one after it, each judged as in training"


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
    """Of all values that are numbers; as if they were independent."""
    kept = np.asarray(list(values), np.float64)
    kept = kept[np.isfinite(kept)]
    if not kept.size:
        return Estimate(None, None, 0)
    error = float(kept.std(ddof=1) / np.sqrt(kept.size)) if kept.size > 1 else None
    return Estimate(float(kept.mean()), error, int(kept.size))


class Heading(NamedTuple):
    """Where one meta-parameter is heading.

    Attributes:
      value: what it is now; the mean over states if it belongs to the state.
      push: −dJ'/dx.
      up: in how many batches the push is above 0.
      down: in how many it is below.
    """

    value: float
    push: Estimate
    up: int
    down: int

    @property
    def direction(self) -> str:
        """ "up" or "down", by the mean; "nowhere" if there is no push at all."""
        if not self.push.mean:
            return "nowhere"
        return "up" if self.push.mean > 0 else "down"

    @property
    def is_clear(self) -> bool:
        """Whether the mean is told from 0."""
        t = self.push.t
        return t is not None and abs(t) >= CLEAR


class Agreement(NamedTuple):
    """How far two judges agree: cosines of their ∇_θ' J' and of their dJ'/dx."""

    pair: str
    directions: Estimate
    meta_gradients: Estimate


class Report(NamedTuple):
    """What the samples of a run amount to.

    Attributes:
      learned: names of the meta-parameters, n of them.
      pushes: `[K, n]`, of the batches.
      open_places: where η acts at all along the configured paths.
      headings: name -> `Heading`.
      by_place: name -> place -> push.
      by_time: name -> place -> push along the η of each of the T states arrived in.
      by_judge: judge -> name -> push.
      agreements: of pairs of judges, and of consecutive updates.
      excess: by how much the next unroll of the same games agrees with τ more than other games do.
      sizes: what else is worth a mean.
    """

    learned: tuple[str, ...]
    pushes: np.ndarray
    open_places: tuple[str, ...]
    headings: dict[str, Heading]
    by_place: dict[str, dict[str, Estimate]]
    by_time: dict[str, dict[str, list[Estimate]]]
    by_judge: dict[str, dict[str, Estimate]]
    agreements: list[Agreement]
    excess: Estimate
    sizes: dict[str, Estimate]


def report(config: Config, samples: Sequence[Sample]) -> Report:
    """Means and standard errors of at least one sample."""
    learned = config.learned
    by_place = -np.array([sample.by_place for sample in samples])  # [K, P, n]
    by_time = -np.array([sample.by_time for sample in samples])  # [K, 2, T, n]
    pushes = by_place.sum(axis=1)
    values = {"gamma": estimate(s.gamma for s in samples), "lambda": estimate(
        s.lambda_ for s in samples)}  # fmt: skip
    headings = {}
    for index, name in enumerate(learned):
        value, of_name = values[name].mean, pushes[:, index]
        assert value is not None
        headings[name] = Heading(
            value, estimate(of_name), int((of_name > 0).sum()), int((of_name < 0).sum())
        )
    return Report(
        learned=learned,
        pushes=pushes,
        open_places=tuple(
            place
            for place in PLACES
            if PATHS.index(_PATH_OF.get(place, RETURNS)) <= PATHS.index(config.meta_gradient_paths)
        ),
        headings=headings,
        by_place={
            name: {place: estimate(by_place[:, p, i]) for p, place in enumerate(PLACES)}
            for i, name in enumerate(learned)
        },
        by_time={
            name: {
                place: [estimate(column) for column in by_time[:, p, :, i].T]
                for p, place in enumerate(TIMED_PLACES)
            }
            for i, name in enumerate(learned)
        },
        by_judge={
            judge: {
                name: estimate(-sample.meta_gradients[judge][i] for sample in samples)
                for i, name in enumerate(learned)
            }
            for judge in samples[0].meta_gradients
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
    """The same as plain numbers."""
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
            for name, heading in result.headings.items()
        },
        "by_place": {
            name: {place: push.to_json() for place, push in places.items()}
            for name, places in result.by_place.items()
        },
        "by_time": {
            name: {place: [push.to_json() for push in pushes] for place, pushes in places.items()}
            for name, places in result.by_time.items()
        },
        "by_judge": {
            judge: {name: push.to_json() for name, push in names.items()}
            for judge, names in result.by_judge.items()
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
        "push_per_batch": {
            name: result.pushes[:, i].tolist() for i, name in enumerate(result.learned)
        },
    }


# The text.


def _push(push: Estimate) -> str:
    if push.mean is None:
        return "–"
    error = "" if push.standard_error is None else f" ± {push.standard_error:.1e}"
    return f"{push.mean:+.2e}{error}"


def _cosine(cosine: Estimate) -> str:
    if cosine.mean is None:
        return "–"
    error = "" if cosine.standard_error is None else f" ± {cosine.standard_error:.2f}"
    return f"{cosine.mean:+.2f}{error}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns also line up on the screen."""
    cells = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def heading_in_words(name: str, heading: Heading) -> str:
    """For example "γ up: 14 of 20 batches, t = 3.1"."""
    symbol, batches = SYMBOLS[name], heading.push.batches
    if heading.direction == "nowhere":
        return f"{symbol} nowhere: its meta-gradient is zero in the mean"
    t = "–" if heading.push.t is None else f"{heading.push.t:.1f}"
    agreeing = heading.up if heading.direction == "up" else heading.down
    evidence = f"{agreeing} of {batches} batches, t = {t}"
    if heading.is_clear:
        return f"{symbol} {heading.direction}: {evidence}"
    return f"{symbol} in no clear direction (leans {heading.direction}: {evidence})"


def _heading_lines(config: Config, result: Report) -> list[str]:
    lines = []
    for name, heading in result.headings.items():
        value = f"{heading.value:.4f}"
        if config.meta_parameter_scope == "state":
            value += " in the mean over states"
        if name == "gamma":
            horizon = 1.0 / (1.0 - heading.value) if heading.value < 1.0 else math.inf
            value += f", effective horizon 1/(1−γ) = {horizon:,.0f} agent steps"
        lines.append(f"- {heading_in_words(name, heading)}. Now {value}.")
        largest = max(
            result.by_place[name].items(),
            key=lambda place_and_push: abs(place_and_push[1].mean or 0),
        )
        lines.append(f"  Push {_push(heading.push)}; its largest part is that of the {largest[0]}.")
    return lines


def _time_rows(result: Report) -> list[list[str]]:
    """The push of each quarter of the unroll: sums over its states."""
    of_batches = result.by_time[result.learned[0]][TIMED_PLACES[0]]
    rows = []
    for states in np.array_split(np.arange(len(of_batches)), min(_QUARTERS, len(of_batches))):
        first, last = int(states[0]) + 1, int(states[-1]) + 1
        row = [f"{first} to {last}" if last > first else str(first)]
        for name in result.learned:
            for place in TIMED_PLACES:
                means = [result.by_time[name][place][state].mean for state in states]
                row.append(f"{sum(mean or 0.0 for mean in means):+.2e}")
        rows.append(row)
    return rows


def _independence_lines(config: Config, result: Report) -> list[str]:
    excess = result.excess
    by = "–" if excess.mean is None else f"{_cosine(excess)}, t = {excess.t or 0.0:.1f}"
    if excess.t is None or abs(excess.t) < CLEAR:
        verdict = "is not told from other games as a judge of the update on τ"
    elif excess.t > 0:
        verdict = "agrees with τ more than other games do: it is no independent judge"
    else:
        verdict = "agrees with τ less than other games do"
    lines = [f"The next unroll of the games of τ {verdict} (difference {by})."]
    if config.meta_data == "held_out":
        return [*lines, "In training τ' is of other games, held out from the same batch."]
    if config.meta_data == "same":
        return [*lines, "In training τ' is τ itself: it judges its own update."]
    environments = config.num_actors * config.envs_per_actor
    share = sampling.share_of_same_games(config)
    continues = {0.0: "none", 1.0: "all"}.get(share, f"some {100 * share:.0f} %")
    return [
        *lines,
        f"In training {continues} of τ' continues games of τ: {environments} environments fill "
        f"batches of {config.batch_size} in turn.",
    ]


def _preamble(config: Config, title: str, learning_rate: float) -> list[str]:
    lines = [
        title,
        "θ and η are held at the checkpoint: these are samples of the meta-gradient at one point.",
        "Push is −dJ'/dx, x the logit of γ or λ: above 0 it goes up. It grows with the learning",
        f"rate, here {learning_rate:.3g}, that of the run's last update. ± is the standard error",
        "over batches, as if they were independent. J' is judged as in training, by:",
        f"{sampling.judge_of_training(config)}.",
    ]
    if config.meta_parameter_scope == "state":
        lines.append("γ and λ belong to the state: all pushes are those of the bias of x.")
    if config.trace_decay:
        lines.append(
            f"The run has a trace (μ = {config.trace_decay:g}): this is the part of one update, "
            "∂f/∂η; what the trace carries over is left out."
        )
    return lines


def _place_rows(result: Report) -> list[list[str]]:
    rows = []
    for place in PLACES:
        pushes = [
            _push(result.by_place[name][place]) if place in result.open_places else "0 (closed)"
            for name in result.learned
        ]
        rows.append([_PATH_OF.get(place, RETURNS).replace("_", " "), place, *pushes])
    return [*rows, ["all", "all", *(_push(result.headings[name].push) for name in result.learned)]]


def text(config: Config, title: str, learning_rate: float, result: Report) -> str:
    """What is printed and written to `explain.md`.

    Args:
      config: of the run.
      title: says which run, checkpoint and batches.
      learning_rate: of the updates.
      result: the numbers.
    """
    symbols = [SYMBOLS[name] for name in result.learned]
    pushes = [f"push on {symbol}" for symbol in symbols]
    timed = [f"{symbol}, {place}" for symbol in symbols for place in TIMED_PLACES]
    cosines = ["cosine of ∇_θ' J'", "cosine of dJ'/dx"]
    if len(symbols) == 1:
        cosines[1] = "sign agreement of dJ'/dx (1: same, −1: opposite)"
    agreements = [
        [a.pair, _cosine(a.directions), _cosine(a.meta_gradients)] for a in result.agreements
    ]
    judges = [
        [judge, *(_push(of_name) for of_name in names.values())]
        for judge, names in result.by_judge.items()
    ]
    sizes = [[name, _push(size).removeprefix("+")] for name, size in result.sizes.items()]
    sections = [
        ["# What the meta-gradient does"],
        _preamble(config, title, learning_rate),
        [f"## Where {' and '.join(symbols)} {'is' if len(symbols) == 1 else 'are'} heading"],
        _heading_lines(config, result),
        ["## Which term, along which path"],
        _table(["path", "place", *pushes], _place_rows(result)),
        ["## Where in the unroll"],
        ["By the γ and λ of the states that are arrived in after so many steps."],
        _table(["steps", *timed], _time_rows(result)),
        ["## How independent is τ'?"],
        _table(["two judges", *cosines], agreements),
        _independence_lines(config, result),
        _table(["judged by", *pushes], judges),
        ["## Sizes"],
        _table(["", "mean over batches"], sizes),
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"
