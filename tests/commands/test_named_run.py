"""The commands that take one run take it as an argument and as --logdir (command)."""

import pytest
from support.command_helpers import refused

COMMANDS = ("watch", "evaluate", "explain", "export", "doctor")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("form", ["{}", "--logdir={}"])
def test_a_run_is_an_argument_or_a_flag(name, form, tmp_path):
    (tmp_path / "runs/pong").mkdir(parents=True)
    for file in ("config.json", "status.json"):
        (tmp_path / "runs/pong" / file).touch()
    others = [f"--out={tmp_path}/agent.npz"] if name == "export" else []
    if name == "explain":
        others = ["--nofigure"]
    error = refused(f"meta_impala.{name}", form.format(tmp_path / "runs"), *others)
    assert "(there is no config.json); runs below it: pong" in error
    error = refused(f"meta_impala.{name}", form.format(tmp_path / "runs/pogn"), *others)
    assert "(there is no such folder) (did you mean pong?)" in error
    error = refused(f"meta_impala.{name}", form.format(tmp_path / "runs/pong/config.json"), *others)
    file = tmp_path / "runs/pong/config.json"
    assert error == f"error: {file}: must be the folder of a run (it is a file)\n"
