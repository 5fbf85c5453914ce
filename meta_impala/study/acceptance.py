"""Whether Switching is fit for the study: what every constant γ loses to the right γ per phase."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from meta_impala.study import design, effects
from meta_impala.study.design import ACCEPTANCE, LEAST_LOSS
from meta_impala.study.records import Record


def areas_of(records: Sequence[Record], random: float) -> dict[str, list[float]]:
    """Areas of the results among the runs of the acceptance test, by variant.

    Args:
      records: of any parts.
      random: the score of random actions.
    """
    return {
        variant: [
            effects.area(record, random)
            for record in records
            if (record.part, record.variant) == (ACCEPTANCE.name, variant) and record.counts
        ]
        for variant in ACCEPTANCE.arms
    }


def verdict(areas: dict[str, list[float]]) -> str:
    """`accepted`, `not accepted`, or `undecided` as long as a run is missing."""
    if any(len(of) < len(ACCEPTANCE.seeds) for of in areas.values()):
        return "undecided"
    means = {name: statistics.fmean(of) for name, of in areas.items()}
    right = means.pop(design.RIGHT)
    return "accepted" if max(means.values()) <= (1.0 - LEAST_LOSS) * right else "not accepted"


def table(records: Sequence[Record], random: float) -> str:
    """The test as a Markdown table: area of each γ (mean, standard deviation) and what it loses."""
    areas = areas_of(records, random)
    right = statistics.fmean(areas[design.RIGHT]) if areas[design.RIGHT] else float("nan")
    lines = [
        "| γ | runs | area (sd over seeds) | loses of the area | of the area above random |",
        "|---|---|---|---|---|",
    ]
    for name, of in areas.items():
        label = "0, then .99" if name == design.RIGHT else name.removeprefix("F_")
        if len(of) < 2:
            lines.append(f"| {label} | {len(of)} | – | – | – |")
            continue
        mean = statistics.fmean(of)
        cells = ["–", "–"]
        if name != design.RIGHT and areas[design.RIGHT] and right not in (0.0, random):
            losses = [1.0 - mean / right, 1.0 - (mean - random) / (right - random)]
            cells = [f"{100 * loss:.0f} %" for loss in losses]
        cells.insert(0, f"{mean:.3f} ({statistics.stdev(of):.3f})")
        lines.append(f"| {label} | {len(of)} | {' | '.join(cells)} |")
    rule = f"Best constant loses at least {100 * LEAST_LOSS:.0f} % of the area"
    return "\n".join([*lines, "", f"{rule}: {verdict(areas)}. Random actions: {random:.3g}."])
