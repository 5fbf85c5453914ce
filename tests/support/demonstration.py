"""The runs that ship with the repository, and copies of them to be changed."""

import json
import pathlib
import shutil

ROOT = pathlib.Path(__file__).parents[2]
RUNS = ROOT / "testdata" / "demonstration" / "runs"
ALL_RUNS = sorted(path.parent for path in RUNS.glob("*/*/*/config.json"))
META_PONG = RUNS / "meta" / "Pong" / "seed_1"
# Of version 0.1: its config has 44 of today's settings.
OLDER_PONG = ROOT / "testdata" / "results" / "pong_0.1"


def copy_of(run: pathlib.Path, path: pathlib.Path, **settings) -> pathlib.Path:
    """A copy of a run at a path, with other settings in its config."""
    shutil.copytree(run, path)
    config = json.loads((path / "config.json").read_text("utf-8")) | settings
    (path / "config.json").write_text(json.dumps(config), "utf-8")
    return path
