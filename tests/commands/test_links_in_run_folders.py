"""Links in a folder from somebody else, in every place that a command writes to (fault).

A command is run once to see what it writes. Then each of these names is a link to what another
folder has under it, and the command may refuse it, or replace the link; the other folder stays.
"""

import pathlib
import shutil
import sys
import types

import pytest
from support import forked_command
from support.command_helpers import run_module
from support.run_helpers import BATCH_FRAMES, files_of, make_config, make_trainer

from meta_impala.errors import UserError
from meta_impala.experiments import study_runner
from meta_impala.storage.results_folder import refuse_links
from meta_impala.storage.run_folder import RunFolder
from meta_impala.system.signals import StopRequest

ROOT = pathlib.Path(__file__).parents[2]

# Name -> arguments (run, folder for other results -> words), and whether it writes in the run.
COMMANDS = {
    "train": (lambda run, _: ["train", f"--logdir={run}", "--total_frames=1000"], True),
    "evaluate": (lambda run, _: ["evaluate", str(run), "--episodes=2", "--seed=3"], True),
    "evaluate with a video": (
        lambda run, _: ["evaluate", str(run), "--episodes=1", "--record_video"],
        True,
    ),
    "explain": (lambda run, _: ["explain", str(run), "--batches=2", "--warmup=0"], True),
    "doctor": (lambda run, _: ["doctor", str(run)], False),
    "report": (lambda run, out: ["report", f"--out={out}/r.html", str(run)], False),
    "plot": (lambda run, out: ["plot", f"--out={out}/c.png", str(run)], False),
    "compare": (lambda run, out: ["compare", f"--out={out}/comparison", str(run)], False),
    "export": (lambda run, out: ["export", f"--out={out}/a.npz", str(run)], False),
    "record": (
        lambda run, out: ["record", f"--out={out}/s.json", f"--logdir={run}", "--games=1"],
        False,
    ),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "catch"
    config = make_config(total_frames=20 * BATCH_FRAMES, envs_per_actor=4)
    assert make_trainer(folder, config).run() == "finished"
    assert (
        run_module("meta_impala", "evaluate", str(folder), "--episodes=1").returncode == 0
    )  # for `compare`
    return folder


def _needed_package(name):
    if "video" in name:
        pytest.importorskip("imageio_ffmpeg")


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_written_through_a_link(name, trained, tmp_path):
    _needed_package(name)
    words, writes = COMMANDS[name]
    first = shutil.copytree(trained, tmp_path / "first")
    before = files_of(first)
    result = run_module("meta_impala", *words(first, tmp_path))
    assert result.returncode == 0, result.stderr
    after = files_of(first)
    changed = {path.relative_to(first) for path in after if after[path] != before.get(path)}
    assert bool(changed) == writes
    places = {path.parts[0] for path in changed}
    for place in sorted(places):
        other = shutil.copytree(first, tmp_path / f"other of {place}")
        mine = shutil.copytree(trained, tmp_path / f"mine with {place}")
        _replace(mine / place, other / place)
        precious = files_of(other)
        result = run_module("meta_impala", *words(mine, tmp_path))
        assert files_of(other) == precious, place
        assert "Traceback" not in result.stderr, place
        if result.returncode:
            assert result.returncode == 2 and result.stderr.count("\n") == 1
            assert f"{mine / place}: is a symbolic link; must be" in result.stderr


def _replace(path, target):
    """A link in the place of a file or folder."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def test_a_folder_of_results_that_the_user_names_may_be_a_link(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (run / "explain").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs").symlink_to(run)
    words = ["explain", str(tmp_path / "runs"), "--batches=2", "--warmup=0", "--nofigure"]
    result = run_module("meta_impala", *words, f"--outdir={tmp_path / 'link'}")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "elsewhere" / "explain.json").exists()
    (run / "explain").unlink()
    assert (
        run_module("meta_impala", *words).returncode == 0
        and (run / "explain" / "explain.json").exists()
    )


_SUITE = """
title = "A title"
games = ["Catch"]
seeds = [1]
settings = { total_frames = 200, batch_size = 4, unroll_length = 5, meta_batch_size = 2 }
variants = [{ name = "a" }]
"""


@pytest.mark.parametrize("more", [[], ["--report_only"]], ids=str)
@pytest.mark.parametrize(
    "place", ["report", "logs", "runs", "runs/a", "runs/a/Catch", "runs/a/Catch/seed_1"]
)
def test_a_suite_writes_nothing_through_a_link(tmp_path, place, more):
    (tmp_path / "suite.toml").write_text(_SUITE, "utf-8")
    other, out = tmp_path / "other", tmp_path / "out"
    (other / place).mkdir(parents=True)
    (other / place / "report.md").write_text("precious", "utf-8")
    (out / place).parent.mkdir(parents=True)
    (out / place).symlink_to(other / place)
    precious = files_of(other)
    result = forked_command.run(
        [sys.executable, "-m", "meta_impala", "suite", f"--out={out}", *more,
         str(tmp_path / "suite.toml")],
        light=True, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert f"{out / place}: is a symbolic link; must be a folder of {out}" in result.stderr
    assert files_of(other) == precious


def test_the_study_removes_and_writes_nothing_through_a_link(tmp_path):
    """An unfinished run of some games begins anew: its folder is removed first."""
    other, out = tmp_path / "other", tmp_path / "out"
    run = RunFolder(other / "A" / "Switching" / "seed_11")
    run.path.mkdir(parents=True)
    (run.path / "config.json").write_text("{}", "utf-8")
    out.mkdir()
    (out / "runs").symlink_to(other)
    folder = RunFolder(out / "runs" / "A" / "Switching" / "seed_11")
    cell = types.SimpleNamespace(
        name="A.Switching.seed_11", game="Switching", folder=folder, config=make_config()
    )
    cells = types.SimpleNamespace(
        out=out,
        ready=lambda given_up: [cell],
        part=types.SimpleNamespace(tasks=()),
        suite=types.SimpleNamespace(evaluation={}),
    )
    precious = files_of(other)
    with pytest.raises(UserError, match=r"/out/runs: is a symbolic link; must be a folder of"):
        study_runner.run_part(cells, 1, StopRequest())
    assert files_of(other) == precious


@pytest.mark.parametrize("name", ["member_00", "tune", "settings.json", ".hidden"])
def test_a_link_in_the_place_of_a_member_is_refused(tmp_path, trained, name):
    """A member is trained by the ordinary command, which would continue the other run."""
    members = tmp_path / "population" / "members"
    members.mkdir(parents=True)
    (members / name).symlink_to(trained)
    with pytest.raises(UserError, match=rf"/members/{name}: is a symbolic link; must be"):
        RunFolder(members.parent).prepare()


def test_the_way_to_a_place_is_checked_up_to_the_folder_that_was_named(tmp_path):
    (tmp_path / "real" / "a" / "b").mkdir(parents=True)
    (tmp_path / "named").symlink_to(tmp_path / "real")
    root = tmp_path / "named"
    for place in ("a", "a/b", "a/b/new", "new/newer"):
        assert refuse_links(root / place, root) == root / place
    (root / "a" / "circle").symlink_to("circle")
    (root / "a" / "nothing").symlink_to("/no/such/folder")
    for place in ("a/circle", "a/nothing", "a/nothing/below"):
        with pytest.raises(UserError, match=r"is a symbolic link; must be a folder of"):
            refuse_links(root / place, root)
