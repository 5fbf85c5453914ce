"""Where a run or a population may start: a folder that holds something else is refused (fault)."""

import pytest
from support.run_helpers import files_of, make_config

from meta_impala.errors import UserError
from meta_impala.storage.folder_use import check_for_population, check_for_run
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
