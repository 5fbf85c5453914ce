"""The parts of a report that are text and tables: runs, evaluations, videos, explain, settings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from meta_impala.analysis.run_page import charts
from meta_impala.analysis.run_page.markup import (
    Markup,
    data_address,
    element,
    escaped,
    joined,
    table,
)
from meta_impala.analysis.run_page.run_record import RunRecord
from meta_impala.config import FIELDS
from meta_impala.config.hyper_parameters import SYMBOLS_IN_TEXT
from meta_impala.diagnosis.evidence import Evidence
from meta_impala.diagnosis.verdict import diagnose, note_on_changes, sentences
from meta_impala.errors import UserError
from meta_impala.storage.run_status import failure_of

NOTHING = "–"
# Up to this many runs are the columns of the table of differences; more are its rows.
_MOST_COLUMNS = 4
_Z = 1.96  # 95 % of a normal distribution


def number(value: object, digits: int = 4) -> str:
    """A formatted number; a dash for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return NOTHING
    whole = isinstance(value, int) or abs(value) >= 10**digits
    return (f"{value:,.0f}" if whole else f"{value:.{digits}g}").replace("-", "−")


def interval(evaluation: Mapping[str, Any] | None) -> str:
    """Mean return and 95 % interval over the games, such as `−12.1 ± 1.0`."""
    if evaluation is None:
        return NOTHING
    mean, error = evaluation.get("mean"), evaluation.get("standard_error")
    if not isinstance(mean, (int, float)):
        return NOTHING
    if not isinstance(error, (int, float)) or not math.isfinite(error):
        return f"{mean:,.2f}".replace("-", "−")
    return f"{mean:,.2f} ± {_Z * error:,.2f}".replace("-", "−")


def _named(style: int, record: RunRecord) -> Markup:
    return joined([charts.swatch(style), " ", element("span", record.label, class_="name")])


def legend(records: Sequence[RunRecord]) -> Markup:
    """Labels and line samples of the runs; empty for a single run."""
    if len(records) < 2:
        return Markup("")
    entries = [element("span", _named(style, record)) for style, record in enumerate(records)]
    return element("p", *entries, class_="legend")


def runs(records: Sequence[RunRecord]) -> Markup:
    """The state and results of each run; the legend of all charts."""
    head = ["Run", "State", "Frames", "Return", "Evaluation", "γ", "λ", "Frames/s", "Hours"]
    rows = []
    for style, record in enumerate(records):
        hours = record.last("seconds") / 3600
        rows.append(
            [
                _named(style, record),
                record.status.get("state", NOTHING),
                number(_whole(record.last("frames"))),
                number(record.last("episode_return")),
                interval(record.evaluation),
                number(record.last("gamma")),
                number(record.last("lambda")),
                number(_mean_speed(record), 3),
                f"{hours:.2f}" if math.isfinite(hours) else NOTHING,
            ]
        )
    return element(
        "section", element("h2", "Runs"), table(head, rows, class_="cards"), _failures(records)
    )


def _whole(value: float) -> float | int:
    return int(value) if math.isfinite(value) else value


def _mean_speed(record: RunRecord) -> float:
    seconds = record.last("seconds")
    return record.last("frames") / seconds if seconds > 0 else math.nan


def _failures(records: Sequence[RunRecord]) -> Markup:
    lines = []
    for record in records:
        lines += [f"{record.label}: {note}" for note in record.notes]
        failure = failure_of(record.status)
        if failure is not None:
            lines.append(f"{record.label} {record.status['state']}: {failure}")
    return joined(element("p", line, class_="note") for line in lines)


def check_ups(records: Sequence[RunRecord]) -> Markup:
    """What `doctor --nobatch` says of each run."""
    entries = []
    for style, record in enumerate(records):
        try:
            config = record.folder.as_trained(record.folder.load_config())
        except UserError:  # of an unknown version, or it names a module
            continue
        verdict = diagnose(Evidence(config, record.status, record.metrics))
        # How it ended is said with the runs.
        said = sentences(verdict._replace(failure_sentence=None))
        lines = " ".join([*said, note_on_changes(verdict) or ""]).rstrip()
        entries.append(element("li", _named(style, record), element("p", lines)))
    if not entries:
        return Markup("")
    command = element("code", "meta-impala doctor RUN")
    return element(
        "section",
        element("h2", "Does it learn?"),
        element("ul", *entries, class_="plain"),
        element(
            "p", "From the metrics alone; ", command, " also plays a few games.", class_="note"
        ),
    )


def evaluations(records: Sequence[RunRecord]) -> Markup:
    """`evaluation.json` of the runs that have one."""
    head = ["Run", "Mean return, 95 % interval", "Median", "Range", "Games", "Human-normalised",
            "Trained", "How"]  # fmt: skip
    rows = []
    for style, record in enumerate(records):
        found = record.evaluation
        if found is None:
            continue
        share = found.get("human_normalised")
        how = [found.get(key) for key in ("policy", "starts", "protocol")]
        rows.append(
            [
                _named(style, record),
                interval(found),
                number(found.get("median")),
                f"{number(found.get('min'))} to {number(found.get('max'))}",
                number(found.get("episodes")),
                f"{100 * share:.0f} %" if isinstance(share, (int, float)) else NOTHING,
                number(found.get("frames_trained")),
                ", ".join(str(part) for part in how if isinstance(part, str)) or NOTHING,
            ]
        )
    if not rows:
        return Markup("")
    note = "The interval is over the games of this evaluation; it says nothing about other seeds."
    return element(
        "section",
        element("h2", "Evaluation"),
        table(head, rows, class_="cards"),
        element("p", note, class_="note"),
    )


def videos(records: Sequence[RunRecord]) -> Markup:
    """`video.mp4` of the runs that have one."""
    figures = [
        element(
            "figure",
            element("figcaption", _named(style, record)),
            element(
                "video",
                src=data_address("video/mp4", record.video),
                controls="",
                playsinline="",
                preload="metadata",
            ),
        )
        for style, record in enumerate(records)
        if record.video is not None
    ]
    if not figures:
        return Markup("")
    grid = element("div", *figures, class_="charts")
    return element("section", element("h2", "A game"), grid, class_="videos")


def explanations(records: Sequence[RunRecord]) -> Markup:
    """What `explain` found."""
    parts = []
    for style, record in enumerate(records):
        found = record.explanation
        if found is None:
            continue
        rows = _heading_rows(found)
        about = (
            f"{number(found.get('batches'))} batches after {number(found.get('frames_trained'))} "
            "frames. Push is −dJ'/dx, x the logit: above 0 the meta-parameter goes up. Clear is "
            "|t| of at least 2."
        )
        head = ["Meta-parameter", "Now", "Push", "t", "Batches up / down", "Direction"]
        parts += [element("h3", _named(style, record)), element("p", about)]
        parts.append(table(head, rows, class_="cards"))
        if record.picture is not None:
            parts.append(
                element(
                    "img",
                    src=data_address("image/png", record.picture),
                    alt=f"The meta-gradient of {record.label}, by place and time",
                )
            )
    if not parts:
        return Markup("")
    return element("section", element("h2", "Where the meta-gradient points"), *parts)


def _heading_rows(found: Mapping[str, Any]) -> list[list[object]]:
    rows: list[list[object]] = []
    headings = found.get("heading")
    for name, entry in headings.items() if isinstance(headings, dict) else ():
        if not isinstance(entry, dict):
            continue
        push = entry.get("push")
        push = push if isinstance(push, dict) else {}
        error = push.get("standard_error")
        direction = entry.get("direction")
        known = direction if direction in ("up", "down") else "nowhere"
        if entry.get("is_clear") is not True:
            known = f"not clear (leans {known})" if known != "nowhere" else known
        rows.append(
            [
                SYMBOLS_IN_TEXT.get(name, name),
                number(entry.get("value")),
                number(push.get("mean"), 3) + (f" ± {number(error, 2)}" if error else ""),
                number(push.get("t"), 3),
                f"{number(entry.get('batches_up'))} / {number(entry.get('batches_down'))}",
                known,
            ]
        )
    return rows


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _names(records: Sequence[RunRecord]) -> list[str]:
    """Names of all settings, in the order of this version; unknown ones come last."""
    found = dict.fromkeys(name for record in records for name in record.config)
    return [name for name in FIELDS if name in found] + [n for n in found if n not in FIELDS]


def differences(records: Sequence[RunRecord]) -> Markup:
    """The settings in which the runs differ."""
    if len(records) < 2:
        return Markup("")
    missing = object()
    differing = [
        name
        for name in _names(records)
        if len({_text(r.config.get(name, str(missing))) for r in records}) > 1
    ]
    if not differing:
        note = element("p", "All settings are the same.")
        return element("section", element("h2", "How the runs differ"), note)
    cells = [
        [escaped(_text(r.config[n]) if n in r.config else NOTHING, 80) for n in differing]
        for r in records
    ]
    flags = [f"--{name}" for name in differing]
    named = [_named(style, record) for style, record in enumerate(records)]
    if len(records) <= _MOST_COLUMNS:
        rows = [
            [flag, *column] for flag, column in zip(flags, zip(*cells, strict=True), strict=True)
        ]
        labels = ["Setting", *(record.label for record in records)]
        found = table(["Setting", *named], rows, class_="cards", labels=labels)
    else:
        rows = [[name, *row] for name, row in zip(named, cells, strict=True)]
        found = table(["Run", *flags], rows, class_="cards")
    return element("section", element("h2", "How the runs differ"), found)


def settings(records: Sequence[RunRecord]) -> Markup:
    """All settings of each run; those that are not the default are bold."""
    parts = []
    for style, record in enumerate(records):
        rows = []
        for name in _names([record]):
            text = escaped(_text(record.config[name]), 400)
            cell = text if _is_default(name, record.config[name]) else element("strong", text)
            rows.append([f"--{name}", cell])
        parts.append(
            element(
                "details",
                element("summary", _named(style, record)),
                table(["Setting", "Value"], rows, class_="settings"),
            )
        )
    note = element("p", "Bold: not the default of this version.", class_="note")
    return element("section", element("h2", "Settings"), *parts, note)


def _is_default(name: str, value: object) -> bool:
    return name in FIELDS and FIELDS[name].default in (value, None)
