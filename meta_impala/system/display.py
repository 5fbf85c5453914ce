"""Whether a window can be shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


def has_display(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> bool:
    """Whether there is a screen, as far as the environment variables say.

    Args:
      environ: of the process.
      platform: as `sys.platform`; other systems than Linux and the BSDs always have one.
    """
    if platform in ("win32", "darwin"):
        return True
    # SDL draws without a screen if it is told to, and pygame uses SDL.
    names = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    return any(environ.get(name) for name in names)
