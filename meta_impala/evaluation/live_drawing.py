"""One frame of `watch`: the game's picture, and beside it what the network says of the state.

Everything is drawn into one picture, so that a window and a browser show the same and a browser
needs no script. The two colours that carry meaning are those of Okabe and Ito, which colour-blind
people tell apart; what they say is written beside them too.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from meta_impala.evaluation.live_game import LiveStep

_BACKGROUND, _TEXT, _FAINT = (18, 20, 24), (236, 236, 236), (150, 154, 160)
_BAR, _CHOSEN, _EMPTY = (86, 180, 233), (230, 159, 0), (48, 52, 60)
_HEIGHT, _PANEL, _MARGIN = 480, 380, 20
_LARGEST_SIDE = 960
_LABEL, _NUMBER = 130, 70
# Where the policy's bars begin; a row of them with its name; how many rows may have names.
_BARS_TOP, _ROW, _MOST_ROWS = 290, 18, 24
# Agent steps whose values the curve shows.
_HISTORY = 200


class Caption(NamedTuple):
    """What is played, and by whom.

    Attributes:
      title: the environment.
      agent: the checkpoint and what it has learned from.
      actions: a name for each; empty for their numbers.
    """

    title: str
    agent: str
    actions: tuple[str, ...] = ()


class LiveDrawing:
    """Draws the steps of games; remembers the last values for their curve."""

    def __init__(self) -> None:
        # None where a game ended.
        self._values: deque[float | None] = deque(maxlen=_HISTORY)
        self._rows = 0
        self._fonts = {size: ImageFont.load_default(size) for size in (14, 16, 20)}

    def draw(self, step: LiveStep, caption: Caption) -> Image.Image:
        """One frame, RGB; all frames of a game have one size.

        Args:
          step: of a game; the next one after the one before.
          caption: of the game.
        """
        self._values.append(step.value)
        picture = enlarged(step.picture)
        if step.policy is not None:
            self._rows = min(len(step.policy), _MOST_ROWS)
        rows_end = _BARS_TOP + self._rows * _ROW
        height = max(_HEIGHT, picture.height + 2 * _MARGIN, rows_end + _MARGIN)
        frame = Image.new("RGB", (picture.width + 3 * _MARGIN + _PANEL, height), _BACKGROUND)
        frame.paste(picture, (_MARGIN, (height - picture.height) // 2))
        draw = ImageDraw.Draw(frame)
        left = picture.width + 2 * _MARGIN
        top = self._head(draw, left, step, caption)
        top = self._discounts(draw, left, top, step)
        top = self._value(draw, left, top, step)
        self._policy(draw, left, top, height - _MARGIN, step, caption.actions)
        return frame

    def _write(
        self,
        draw: ImageDraw.ImageDraw,
        at: tuple[float, float],
        text: str,
        size: int = 16,
        **how: Any,
    ) -> None:
        fill = how.pop("fill", _TEXT)
        draw.text(at, text, fill=fill, font=self._fonts[size], anchor=how.pop("anchor", "la"))

    def _head(self, draw: ImageDraw.ImageDraw, left: int, step: LiveStep, caption: Caption) -> int:
        self._write(draw, (left, _MARGIN), _shortened(caption.title, 34), 20)
        self._write(draw, (left, 48), _shortened(caption.agent, 50), 14, fill=_FAINT)
        state = f"return {step.episode_return:g}   step {step.steps:,}"
        if step.policy is None:
            state += "   game over"
        self._write(draw, (left, 74), state)
        return 106

    def _discounts(self, draw: ImageDraw.ImageDraw, left: int, top: int, step: LiveStep) -> int:
        for name, value in (("gamma", step.gamma), ("lambda", step.lambda_)):
            self._bar(draw, left, top, name, value, _decimals(value), _BAR, 18)
            top += 24
        return top + 8

    def _value(self, draw: ImageDraw.ImageDraw, left: int, top: int, step: LiveStep) -> int:
        """V as a number, and its curve over the last steps of the game."""
        text = "" if step.value is None else f"{step.value:.3f}"
        self._write(draw, (left, top), "value V(s)")
        self._write(draw, (left + _PANEL, top), text, anchor="ra")
        box = (left, top + 24, left + _PANEL, top + 84)
        draw.rectangle(box, fill=_EMPTY)
        known = [v for v in self._values if v is not None and math.isfinite(v)]
        if known:
            self._curve(draw, box, min(0.0, *known), max(0.0, *known))
        return top + 100

    def _curve(
        self,
        draw: ImageDraw.ImageDraw,
        box: tuple[int, int, int, int],
        low: float,
        high: float,
    ) -> None:
        """The values remembered, the newest at the right; broken where a game ended."""
        scale = (box[3] - box[1] - 6) / ((high - low) or 1.0)
        zero = box[3] - 3 + low * scale
        draw.line([(box[0], zero), (box[2], zero)], fill=_FAINT)
        start = box[2] - (len(self._values) - 1) * _PANEL / (_HISTORY - 1)
        piece: list[tuple[float, float]] = []
        for index, value in enumerate([*self._values, None]):
            x = start + index * _PANEL / (_HISTORY - 1)
            if value is not None and math.isfinite(value):
                piece.append((x, zero - value * scale))
                continue
            if len(piece) > 1:
                draw.line(piece, fill=_BAR, width=2)
            piece = []

    def _policy(
        self,
        draw: ImageDraw.ImageDraw,
        left: int,
        top: int,
        bottom: int,
        step: LiveStep,
        names: tuple[str, ...],
    ) -> None:
        """A bar per action; the one that was drawn has the other colour and a mark."""
        self._write(draw, (left, top), "policy, and the action drawn")
        if step.policy is None:
            return
        top = _BARS_TOP
        if len(step.policy) > _MOST_ROWS:  # no room for names
            self._histogram(draw, (left, top, left + _PANEL, bottom), step)
            return
        row = min(24, (bottom - top) // len(step.policy))
        for index, share in enumerate(step.policy):
            name = names[index] if names else f"action {index}"
            colour = _CHOSEN if index == step.action else _BAR
            mark = "> " if index == step.action else "   "
            self._bar(
                draw, left, top, mark + name.lower(), float(share), f"{share:.0%}", colour, row - 4
            )
            top += row

    def _histogram(
        self, draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], step: LiveStep
    ) -> None:
        assert step.policy is not None
        draw.rectangle(box, fill=_EMPTY)
        width = (box[2] - box[0]) / len(step.policy)
        for index, share in enumerate(step.policy):
            left = box[0] + index * width
            top = box[3] - (box[3] - box[1]) * float(share)
            colour = _CHOSEN if index == step.action else _BAR
            draw.rectangle((left, top, left + max(1.0, width - 1.0), box[3]), fill=colour)

    def _bar(
        self,
        draw: ImageDraw.ImageDraw,
        left: int,
        top: int,
        name: str,
        share: float,
        number: str,
        colour: tuple[int, int, int],
        thickness: int,
    ) -> None:
        size = 16 if thickness >= 16 else 14
        middle = top + thickness / 2
        self._write(draw, (left, middle), _shortened(name, 17), size, anchor="lm")
        start, end = left + _LABEL, left + _PANEL - _NUMBER
        draw.rectangle((start, top, end, top + thickness), fill=_EMPTY)
        if share > 0:
            filled = start + (end - start) * min(1.0, share)
            draw.rectangle((start, top, filled, top + thickness), fill=colour)
        self._write(draw, (left + _PANEL, middle), number, size, anchor="rm")


def enlarged(picture: np.ndarray) -> Image.Image:
    """A picture by a whole factor, to about the height of the frame; large ones are shrunk.

    Args:
      picture: `[H, W, 3]` uint8.
    """
    height, width = picture.shape[:2]
    image = Image.fromarray(np.ascontiguousarray(picture))
    factor = min((_HEIGHT - 2 * _MARGIN) // height, _LARGEST_SIDE // width)
    if factor >= 1:
        return image.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return image


def _decimals(value: float) -> str:
    """γ or λ with as many digits as tell it from 1."""
    if value >= 1.0 or value <= 0.0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{min(6, 3 + max(0, math.ceil(-math.log10(1.0 - value)) - 1))}f}"


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
