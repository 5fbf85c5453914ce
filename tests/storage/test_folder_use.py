"""Where a run, a population or a result may be: a folder that holds something else is refused, and
so is one that lies in it (fault)."""

import pytest
from support.command_helpers import refused, run_tool
from support.run_helpers import files_of, make_config

from meta_impala.errors import UserError
from meta_impala.experiments import suite_runner
from meta_impala.storage.folder_lock import locked
from meta_impala.storage.folder_use import (
    check_evaluation_file,
    check_for_population,
    check_for_run,
)
from meta_impala.storage.results_folder import check_file, check_outdir
from meta_impala.storage.run_folder import RunFolder
from meta_impala.training import make_trainer

_CONFIG, _CHECKPOINT, _RESULT = "config.json", "checkpoints/frames-1/state", "population.json"
_MEMBER = "members/member_00/config.json"
_BELOW = ["Catch/seed_1/config.json", "Catch/seed_1/status.json"]


def _folder(path, *names: str) -> RunFolder:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    return RunFolder(path)


def _refusal(check, folder, **options) -> str:
    try:
        check(folder, **options)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("names", "run", "population"),
    [
        ([], "", ""),
        (["status.json", "train.log"], "", ""),  # of a start that failed
        ([_CONFIG, _CHECKPOINT], "", "holds a run"),
        ([_CHECKPOINT], "not their config.json", "holds a run"),
        ([_MEMBER], "holds a population", ""),
        ([_MEMBER, _CHECKPOINT], "holds a population", ""),  # killed at its end
        ([_MEMBER, _CONFIG], "holds a population", "holds a run"),
        ([_MEMBER, _CONFIG, _CHECKPOINT, _RESULT], "holds a population", ""),
        (_BELOW, "runs below it: Catch/seed_1", "runs below it: Catch/seed_1"),
        ([_CONFIG, *_BELOW], "", "holds a run"),  # of an older version
    ],
)
def test_a_folder_that_holds_something_else_is_refused(tmp_path, names, run, population):
    folder = _folder(tmp_path, *names)
    for check, expected in ((check_for_run, run), (check_for_population, population)):
        message = _refusal(check, folder)
        assert expected in message and bool(expected) == bool(message)
        assert not message or message.startswith(f"--logdir={tmp_path}: ")


def test_checkpoints_without_their_settings_are_continued_with_override_only(tmp_path):
    folder = _folder(tmp_path, _CHECKPOINT)
    assert _refusal(check_for_run, folder, override=True) == ""
    before = files_of(tmp_path)
    with pytest.raises(UserError, match=r"not their config\.json; restore it, or use another"):
        make_trainer.make_trainer(make_config(), tmp_path)
    assert files_of(tmp_path) == before


_RUN = [_CONFIG, "status.json", "metrics.csv", "checkpoints/frames-1/manifest.json"]
_POPULATION = ["members/settings.json", "members/member_00/config.json"]


@pytest.mark.parametrize("names", [_RUN, _POPULATION], ids=["run", "population"])
@pytest.mark.parametrize(
    "name", ["checkpoints", "checkpoints/frames-1", "sub", "sub/sub", "members/new/sub"]
)
def test_nothing_starts_within_a_run(tmp_path, names, name):
    outer, inner = _folder(tmp_path / "outer", *names), RunFolder(tmp_path / "outer" / name)
    before = files_of(tmp_path)
    where = rf"is in the folder of a run \({outer.path}\), where no command would find it"
    for check in (check_for_run, check_for_population):
        with pytest.raises(UserError, match=f"^--logdir={inner.path}: {where}"), locked(inner):
            check(inner)
    with pytest.raises(UserError, match=where):
        make_trainer.make_trainer(make_config(), inner.path)
    (tmp_path / "link").symlink_to(outer.path)
    with pytest.raises(UserError, match=where):
        make_trainer.make_trainer(make_config(), tmp_path / "link" / name)
    with (
        pytest.raises(UserError, match=rf"^--out={inner.path}: is in the folder of a run"),
        suite_runner.locked(inner.path),
    ):
        pass
    assert files_of(tmp_path) == before


def test_a_run_within_a_run_that_is_there_is_continued(tmp_path):
    """Of an older version."""
    _folder(tmp_path, *_RUN)
    assert _refusal(check_for_run, _folder(tmp_path / "sub", *_RUN)) == ""


@pytest.mark.parametrize("name", ["members/member_00", "members/member_01"])
def test_a_member_is_trained_by_its_population_alone(tmp_path, name):
    outer = _folder(tmp_path / "pbt", *_POPULATION, *_RUN)
    member, before = RunFolder(outer.path / name), files_of(tmp_path)
    with pytest.raises(UserError, match="is a member of the population") as caught:
        make_trainer.make_trainer(make_config(), member.path)
    assert f"the population {outer.path}, which only `meta-impala population`" in str(caught.value)
    assert {path.name for path, _ in files_of(tmp_path).items() - before.items()} <= {"lock"}
    member.path.mkdir(exist_ok=True)
    with locked(outer):  # as the population does
        assert _refusal(check_for_run, member) == ""


def test_a_run_that_is_trained_is_no_population(tmp_path):
    outer = _folder(tmp_path, *_RUN)
    with locked(outer):
        inner = RunFolder(tmp_path / "members" / "member_00")
        inner.path.mkdir(parents=True)
        assert "is in the folder of a run" in _refusal(check_for_run, inner)


def test_other_programs_have_such_names_too(tmp_path):
    folder = _folder(tmp_path, "config.json", "members/anna", "sub/checkpoints/model.ckpt")
    for check in (check_for_run, check_for_population):
        assert _refusal(check, RunFolder(folder.path / "sub" / "new")) == ""
    assert check_file(tmp_path / "sub" / "new.json", "out") == tmp_path / "sub" / "new.json"


_IN_A_RUN = [
    "config.json", "metrics.csv", "new.json", "evaluation.csv", "checkpoints/curves.png",
    "checkpoints/frames-1/manifest.json", "checkpoints/frames-1/evaluation.json",
    "explain/report.html", "new/video.mp4",
]  # fmt: skip


@pytest.mark.parametrize("names", [_RUN, _POPULATION], ids=["run", "population"])
@pytest.mark.parametrize("name", _IN_A_RUN)
def test_no_result_comes_among_the_files_of_a_run(tmp_path, names, name):
    run = _folder(tmp_path / "run", *names)
    (tmp_path / "link").symlink_to(run.path)
    (run.path / name).parent.mkdir(parents=True, exist_ok=True)
    before = files_of(tmp_path)
    for path in (run.path / name, tmp_path / "link" / name):
        where = rf"is in the folder of a run \({run.path}\); must be elsewhere"
        with pytest.raises(UserError, match=f"^--out={path}: {where}"):
            check_file(path, "out")
        with pytest.raises(UserError, match=f"^--data={path.parent}: {where}"):
            check_outdir(str(path.parent), "data")
        if path.parent.name in ("run", "link"):
            where = "must end in .json, and begin with evaluation in a run's folder"
        with pytest.raises(UserError, match=f"^out={path}: {where}"):
            check_evaluation_file(path, of_command=False)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("name", ["curves.png", "c.svg", "report.html", "video.mp4", "agent.npz"])
def test_what_training_does_not_write_may_be_beside_it(tmp_path, name):
    run = _folder(tmp_path / "run", *_RUN)
    assert check_file(run.path / name, "out") == run.path / name
    check_evaluation_file(run.path / "evaluation_of_mine.json")
    assert check_outdir(str(run.path / "explain"), in_run=True) == run.path / "explain"


# How each command is given a place for its results; the last flag is refused.
_COMMANDS = [
    "meta_impala.benchmark --json=RUN/config.json",
    "meta_impala.evaluate --agent=pong --out=RUN/checkpoints/frames-1/manifest.json",
    "meta_impala.evaluate --agent=pong --out=RUN/status.json",
    "meta_impala.evaluate --agent=pong --record_video=RUN/checkpoints/v.mp4",
    "meta_impala.record_starts --logdir=RUN --out=RUN/checkpoints/frames-1/manifest.json",
    "meta_impala.report RUN --out=RUN/checkpoints/r.html",
    "meta_impala.plot RUN --out=RUN/checkpoints/c.png",
    "meta_impala.compare RUN --out=RUN",
    "meta_impala.export RUN --out=RUN/checkpoints/a.npz",
    "meta_impala.illustrative --example=discount --outdir=RUN",
    "tools/scaling_plan measure --out=RUN/s.json",
    "tools/scaling_plan plan RUN/config.json --out=RUN/checkpoints/c.png",
    "tools/time_to_score run --folder=TMP/new --out=RUN/s.csv",
    "tools/time_to_score run --out=TMP/s.csv --folder=RUN/new",
    "tools/peer_time_to_score run --folder=TMP --out=RUN/s.csv",
    "tools/study report --report=RUN",
]


@pytest.mark.parametrize("words", _COMMANDS)
def test_no_command_replaces_files_of_a_run(tmp_path, words):
    run = _folder(tmp_path / "run", *_RUN)
    command, *arguments = words.replace("RUN", str(run.path)).replace("TMP", str(tmp_path)).split()
    before = sorted(tmp_path.rglob("*"))
    if tool := command.partition("/")[2]:
        done = run_tool(tool, *arguments, light=True)
        assert done.returncode == 2, done.stderr
        message = done.stderr
    else:
        message = refused(command, *arguments)
    assert message.startswith(f"error: {arguments[-1]}: ") and message.count("\n") == 1
    own = "must end in .json, and begin with evaluation in a run's folder"
    assert (own if "status.json" in words else f"is in the folder of a run ({run.path})") in message
    assert sorted(tmp_path.rglob("*")) == before
