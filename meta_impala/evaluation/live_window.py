"""The frames of `watch` in a window (pygame, extra `play`)."""

from __future__ import annotations

import importlib.util
import os
from types import TracebackType
from typing import Any

from PIL import Image

from meta_impala.errors import UserError

INSTALL = "pip install 'meta_impala[play]'"
# pygame uses SDL, which can be set to draw without a screen.
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")


def why_not() -> str:
    """Why no window can be shown; empty if one can, as far as is known. Nothing is imported."""
    if not any(os.environ.get(name) for name in _DISPLAYS):
        return "there is no display (DISPLAY is not set)"
    if importlib.util.find_spec("pygame") is None:
        return f"pygame is missing: {INSTALL}"
    return ""


def check(otherwise: str) -> None:
    """Checks that a window can be shown.

    Args:
      otherwise: what to do without one, for the message.

    Raises:
      UserError: if it cannot.
    """
    if reason := why_not():
        raise UserError(f"a window cannot be shown: {reason}; {otherwise}")


class LiveWindow:
    """A window that is open while the `with` block runs, or until a person closes it."""

    def __init__(self, title: str) -> None:
        """Args:
        title: of the window.
        """
        self._title = title
        self._screen: Any = None

    def __enter__(self) -> LiveWindow:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        import pygame

        self._pygame = pygame
        try:
            pygame.display.init()
        except pygame.error as error:
            raise UserError(
                f"a window cannot be shown: {error}; --web shows a page instead"
            ) from None
        pygame.display.set_caption(self._title)
        return self

    def show(self, frame: Image.Image) -> bool:
        """Shows a frame; False once the window was closed."""
        pygame = self._pygame
        if any(event.type == pygame.QUIT for event in pygame.event.get()):
            return False
        if self._screen is None or self._screen.get_size() != frame.size:
            self._screen = pygame.display.set_mode(frame.size)
        picture = pygame.image.frombuffer(frame.tobytes(), frame.size, "RGB")
        self._screen.blit(picture, (0, 0))
        pygame.display.flip()
        return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pygame.display.quit()
