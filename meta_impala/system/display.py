"""Whether a window can be shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


def has_display(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> bool:
    """Whether there is a screen, according to the environment variables.

    Args:
      environ: of the process.
      platform: as `sys.platform`; other systems than Linux and the BSDs always have one.
    """
    if platform in ("win32", "darwin"):
        return True
    # pygame uses SDL, which can be set to draw without a screen.
    names = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    return any(environ.get(name) for name in names)
