"""Which curves a report shows: groups of panels, made from the columns that the runs have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from meta_impala.analysis.run_page import charts
from meta_impala.analysis.run_page.markup import Markup, element, joined
from meta_impala.analysis.run_page.run_record import RunRecord

_SYMBOLS = {"gamma": "Discount γ", "lambda": "Bootstrapping λ"}
_GRADIENT, _STEP = "meta_gradient_", "x_step_"


class Panel(NamedTuple):
    """One chart.

    Attributes:
      column: of `metrics.csv`.
      title: of the chart.
      caption: what the number means.
      is_noisy: whether its running mean is drawn on top.
    """

    column: str
    title: str
    caption: str = ""
    is_noisy: bool = True


_LEARNING = (
    Panel(
        "episode_return",
        "Return per game",
        "Mean of the last 100 training games.",
        is_noisy=False,
    ),
    Panel("episode_frames", "Length of a game", "Environment frames, last 100 games.", False),
)
_LOSSES = (
    Panel("policy_loss", "Policy loss", "−A log π, per agent step."),
    Panel("value_loss", "Value loss", "½ (vs − V)², per agent step."),
    Panel("entropy", "Entropy", "Of the policy, in nats."),
    Panel("inner_loss", "Inner loss J", "The weighted sum, per agent step."),
    Panel("meta_loss", "Meta loss J'", "Per agent step of the meta batch."),
)
_OPTIMISATION = (
    Panel("gradient_norm", "Gradient norm", "‖∇J‖ before the clip."),
    Panel("clip_coefficient", "Clip coefficient", "What the clip multiplies the gradient by."),
    Panel("learning_rate", "Learning rate", is_noisy=False),
    Panel("policy_lag", "Policy lag", "Updates between acting and learning."),
    Panel("rho_clipped_share", "ρ at the clip", "Share of steps whose ρ is at its clip."),
)
_MACHINE = (
    Panel("frames_per_second", "Speed", "Environment frames per second."),
    Panel("queue_fill", "Queue fill", "Share of the queue that is full."),
    Panel("rss_mib", "Memory", "MiB of the trainer's process.", False),
    Panel("bad_updates", "Bad updates", "Not finite, and not applied, so far.", False),
    Panel("actor_restarts", "Actor restarts", "So far.", False),
)
# Not drawn if they are 0 throughout, which is normal.
_COUNTS_OF_FAULTS = ("bad_updates", "actor_restarts")


def meta_parameters_of(records: Sequence[RunRecord]) -> list[str]:
    """Names of the meta-parameters that the runs have columns for; γ and λ first."""
    columns = dict.fromkeys(name for record in records for name in record.metrics)
    others = [
        name.removeprefix(_GRADIENT)
        for name in columns
        if name.startswith(_GRADIENT) and name.removeprefix(_GRADIENT) in columns
    ]
    return list(dict.fromkeys([*_SYMBOLS, *others]))


def groups_of(records: Sequence[RunRecord]) -> list[tuple[str, list[Panel]]]:
    """Heading and panels of every group, without panels that no run has numbers for."""
    names = meta_parameters_of(records)
    values = [
        Panel(name, _SYMBOLS.get(name, name), "As it stands at each row.", False) for name in names
    ]
    gradients = [
        Panel("meta_gradient_norm", "Meta-gradient norm", "‖dJ'/dx‖ before its clip."),
        *(
            Panel(
                f"{_GRADIENT}{name}",
                f"Meta-gradient of {_short(name)}",
                f"dJ'/dx of its logit x: below 0 {_short(name)} goes up.",
            )
            for name in names
        ),
        *(
            Panel(f"{_STEP}{name}", f"Step of {_short(name)}", "What was added to its logit x.")
            for name in names
        ),
    ]
    groups = [
        ("Learning", [*_LEARNING, *values]),
        ("Meta-gradient", gradients),
        ("Losses and entropy", list(_LOSSES)),
        ("Optimisation and policy lag", list(_OPTIMISATION)),
        ("Speed and machine", list(_MACHINE)),
    ]
    kept = [(head, [p for p in panels if _has_numbers(records, p)]) for head, panels in groups]
    return [(head, panels) for head, panels in kept if panels]


def _short(name: str) -> str:
    return _SYMBOLS.get(name, name).rpartition(" ")[2]


def _has_numbers(records: Sequence[RunRecord], panel: Panel) -> bool:
    for record in records:
        values = record.metrics.get(panel.column, np.empty(0))
        finite = values[np.isfinite(values)]
        if finite.size and (panel.column not in _COUNTS_OF_FAULTS or finite.any()):
            return True
    return False


def figure(records: Sequence[RunRecord], panel: Panel, number: int) -> Markup:
    """A panel as an HTML figure.

    Args:
      records: the runs; the index of a run is its style.
      panel: what is drawn.
      number: of the panel in the page.
    """
    curves, dots, ends = [], [], []
    for style, record in enumerate(records):
        values = record.metrics.get(panel.column)
        if values is None or not np.isfinite(values).any():
            continue
        curves.append(charts.Curve(style, record.metrics["frames"], values))
        ends.append(f"{record.last(panel.column):.4g}")
        measured = record.evaluations
        if panel.column == "episode_return" and measured is not None:
            dots.append(charts.Dots(style, *measured))
    description = f"{panel.title} against environment frames; last: {', '.join(ends[:7])}"
    chart = charts.draw(f"chart{number}", description, curves, dots, is_noisy=panel.is_noisy)
    words = panel.caption
    if dots:
        words += " Dots: evaluations played during training, with 95 % intervals."
    caption = [element("strong", panel.title), element("span", words, class_="caption")]
    return element("figure", element("figcaption", *caption), chart)


def sections(records: Sequence[RunRecord], legend: Markup) -> Markup:
    """All groups of panels, each a section with its legend."""
    parts, number = [], 0
    for heading, panels in groups_of(records):
        figures = []
        for panel in panels:
            number += 1
            figures.append(figure(records, panel, number))
        grid = element("div", *figures, class_="charts")
        parts.append(element("section", element("h2", heading), legend, grid))
    return joined(parts)
