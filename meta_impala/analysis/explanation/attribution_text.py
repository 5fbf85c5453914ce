"""The statistics of a meta-gradient as the text of `explain.md`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from meta_impala.algorithm.attribution import SPLIT_PLACES, TIMED_PLACES, UPDATE_RULE
from meta_impala.analysis.explanation import samples as sampling
from meta_impala.analysis.explanation.attribution_report import (
    CLEAR,
    SYMBOLS,
    Estimate,
    Heading,
    Report,
    path_of,
)
from meta_impala.config import Config
from meta_impala.config.metric_columns import row_and_head

_QUARTERS = 4


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
        return f"{symbol} nowhere: its mean meta-gradient is zero"
    t = "–" if heading.push.t is None else f"{heading.push.t:.1f}"
    agreeing = heading.up if heading.direction == "up" else heading.down
    evidence = f"{agreeing} of {batches} batches, t = {t}"
    if heading.is_clear:
        return f"{symbol} {heading.direction}: {evidence}"
    # The mean and most batches may disagree.
    return f"{symbol} in no clear direction (mean {heading.direction}: {evidence})"


def _heading_lines(config: Config, result: Report) -> list[str]:
    lines = []
    for name, heading in result.headings.items():
        value = f"{heading.value:.4f}"
        if name in config.of_states:
            value += " on average over states"
        if name == "gamma":
            horizon = 1.0 / (1.0 - heading.value) if heading.value < 1.0 else math.inf
            value += f", effective horizon 1/(1−γ) = {horizon:,.0f} agent steps"
        lines.append(f"- {heading_in_words(name, heading)}. Now {value}.")
        largest = max(
            result.by_place[name].items(),
            key=lambda place_and_push: abs(place_and_push[1].mean or 0),
        )
        lines.append(f"  Push {_push(heading.push)}; the largest part is through the {largest[0]}.")
    for name, heading in result.headings_of_heads.items():
        row, head = row_and_head(name)
        lines.append(
            f"- Of head {head}: {heading_in_words(row, heading)}. Now {heading.value:.4f}; push "
            f"{_push(heading.push)}."
        )
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
        verdict = "does not differ significantly from other games as a meta batch"
    elif excess.t > 0:
        verdict = "agrees with τ more than other games do: it is not independent"
    else:
        verdict = "agrees with τ less than other games do"
    lines = [f"The next unroll of the games of τ {verdict} (difference {by})."]
    if config.meta_data == "held_out":
        return [*lines, "In training τ' is of other games, held out from the same batch."]
    if config.meta_data == "same":
        return [*lines, "In training τ' is τ itself."]
    environments = config.num_actors * config.envs_per_actor * config.num_learners
    share = sampling.share_of_same_games(config)
    continues = {0.0: "none", 1.0: "all"}.get(share, f"about {100 * share:.0f} %")
    return [
        *lines,
        f"In training {continues} of τ' continues games of τ: {environments} environments fill "
        f"batches of {config.batch_size} in turn.",
    ]


def _preamble(config: Config, title: str, learning_rate: float) -> list[str]:
    lines = [
        title,
        "θ and η are held at the checkpoint: these are samples of the meta-gradient at one point.",
        "Push is −dJ'/dx, x the logit of what is learned: above 0 it goes up. It grows with the",
        f"learning rate, here {learning_rate:.3g}, that of the run's last update. ± is the",
        "standard error over batches, as if they were independent. J' is evaluated as in",
        "training, on:",
        f"{sampling.meta_batch_of_training(config)}.",
    ]
    if config.eta_is_per_state:
        symbols = [SYMBOLS[name] for name in config.of_states]
        *first, last = symbols
        are = f"{', '.join(first)} and {last} are functions" if first else f"{last} is a function"
        lines.append(f"{are} of the state: all pushes are those of the bias of x.")
    if config.trace_decay:
        lines.append(
            f"The run has a trace (μ = {config.trace_decay:g}): this is the part of one update, "
            "∂f/∂η, without what the trace carries over."
        )
    if config.inner_steps > 1:
        lines.append(
            f"The run learns η through {config.inner_steps} updates at a time: this is the part "
            "of one update."
        )
    return lines


def _place_rows(result: Report) -> list[list[str]]:
    rows = []
    for place in SPLIT_PLACES:
        pushes = [
            _push(result.by_place[name][place]) if place in result.open_places else "0 (closed)"
            for name in result.learned
        ]
        path = "any" if place == UPDATE_RULE else path_of(place).replace("_", " ")
        rows.append([path, place, *pushes])
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
    meta_batches = [
        [meta_batch, *(_push(of_name) for of_name in names.values())]
        for meta_batch, names in result.by_meta_batch.items()
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
        ["Through the η of the steps, counted from the start of the unroll."],
        _table(["steps", *timed], _time_rows(result)),
        ["## How independent is τ'?"],
        _table(["two meta batches", *cosines], agreements),
        _independence_lines(config, result),
        _table(["meta batch", *pushes], meta_batches),
        ["## Sizes"],
        _table(["", "mean over batches"], sizes),
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"
