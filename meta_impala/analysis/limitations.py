"""The limitations of a comparison, one line each: missing or different seeds, games and frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from meta_impala.analysis.results import Results
from meta_impala.environments import ATARI_57
from meta_impala.published import atari_n

if TYPE_CHECKING:
    from meta_impala.analysis.comparison import GameRow

PUBLISHED_GAMES = len(ATARI_57)
_SAME_FRAMES = 0.01  # relative


def are_alike(*frames: int) -> bool:
    """Whether these are about the same number of frames."""
    return max(frames) - min(frames) <= _SAME_FRAMES * max(frames)


def normalised_scores(results: Results) -> dict[str, dict[str, list[float]]]:
    """Variant -> game -> human-normalised score per seed; games without human scores left out."""
    by_variant: dict[str, dict[str, list[float]]] = {}
    for variant in results.variants:
        by_game = by_variant.setdefault(variant, {})
        for result in results.of(variant):
            score = result.human_normalised
            if score is not None:
                by_game.setdefault(result.name, []).append(score)
    return by_variant


def games_of_all(results: Results) -> set[str]:
    """The games with human scores that every variant has (variants without any are ignored):
    aggregates can be compared over the same games only."""
    sets = [set(by_game) for by_game in normalised_scores(results).values() if by_game]
    return set.intersection(*sets) if sets else set()


def span(counts: Sequence[int]) -> str:
    """Lowest and highest, as text."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _unlike_frames(results: Results) -> list[str]:
    """One line for each comparison between different numbers of frames."""
    lines = []
    for variant in results.variants:
        names = [
            name
            for name in results.names
            if (of_game := results.of(variant, name))
            and not are_alike(*(r.frames for r in of_game))
        ]
        if names:
            lines.append(
                f"{variant}: the seeds of {', '.join(names)} were trained for different numbers of "
                "frames; their plain mean is shown"
            )
    names = [
        name
        for name in results.names
        if not are_alike(*(r.frames for r in results.found if r.name == name))
    ]
    if names and len(results.variants) > 1:
        lines.append(
            f"in {', '.join(names)}, variants were trained for different numbers of frames"
        )
    return lines


def _games_left_out(results: Results) -> list[str]:
    shared = games_of_all(results)
    every = {game for by_game in normalised_scores(results).values() for game in by_game}
    if every == shared:
        return []
    return [
        f"aggregates over games use the {len(shared)} games that every variant has, without "
        f"{', '.join(sorted(every - shared))}"
    ]


def describe(results: Results, rows: Sequence[GameRow]) -> list[str]:
    """Every limitation of a comparison, one line each."""
    lines, shared = [], games_of_all(results)
    for variant in results.variants:
        of_variant = [row for row in rows if row.variant == variant]
        games = [row for row in of_variant if row.game]
        if games:
            published = sum(row.game in ATARI_57 for row in games)
            lines.append(
                f"{variant}: {published} of {PUBLISHED_GAMES} games; seeds per game: "
                f"{span([len(row.seeds) for row in games])}; frames trained: "
                f"{span([frames for row in games for frames in row.frames])} (published: mostly "
                f"{atari_n.FRAMES:,})"
            )
        seeds = [len(row.seeds) for row in games if row.name in shared]
        if len(set(seeds)) > 1:
            lines.append(
                f"{variant}: aggregates over games use {min(seeds)} seeds of each game, as many "
                "as the game with the fewest has"
            )
        caveats = dict.fromkeys(c for result in results.of(variant) for c in result.caveats)
        lines += [f"{variant}: {caveat}" for caveat in caveats]
        absent = sorted(set(results.names) - {row.name for row in of_variant})
        if absent:
            lines.append(f"{variant}: no run of {', '.join(absent)}")
    return lines + _unlike_frames(results) + _games_left_out(results) + results.missing
