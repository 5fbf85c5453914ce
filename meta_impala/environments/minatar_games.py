"""The games of MinAtar (Young and Tian 2019), which need the extra `minatar`."""

import importlib.util

# Version 1 of their ids has the minimal action sets; the actions are sticky (0.1) in both.
GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
NAMESPACE = "MinAtar/"
INSTALL = "pip install 'meta_impala[minatar]'"


def id_of(game: str) -> str:
    """The id of a game of `GAMES`."""
    return f"{NAMESPACE}{game}-v1"


def is_installed() -> bool:
    """Whether the package is installed; does not import it."""
    try:
        return importlib.util.find_spec("minatar") is not None
    except ValueError:  # a module without a specification has its name
        return False


def why_missing(environment: str) -> str:
    """What to install for an environment of this id; empty for nothing."""
    if environment.startswith(NAMESPACE) and not is_installed():
        return f"the package minatar is missing: {INSTALL}"
    return ""


def register() -> None:
    """Registers the games with Gymnasium, which does not do so by itself.

    Raises:
      ImportError: the package is not installed.
    """
    import gymnasium

    if id_of(GAMES[0]) not in gymnasium.registry:
        from minatar.gym import register_envs

        register_envs()
