"""η of another run as a step function of frames. Ground truth: which frames a row holds from;
fault: damaged, missing and changed files are one line.
"""

import dataclasses
import hashlib
import os
import random

import pytest

from meta_impala.algorithm.functions_of_frames import StepFunction
from meta_impala.config import Config, resolve
from meta_impala.config.metric_columns import learned_columns
from meta_impala.errors import UserError
from meta_impala.storage import eta_replay
from meta_impala.storage.metrics_table import COLUMNS, header_line, line_of, read_table
from meta_impala.storage.run_folder import RunFolder


def metrics(*rows) -> str:
    """A whole `metrics.csv` from (frames, updates, γ, λ)."""
    lines = [
        line_of({"frames": str(f), "updates": str(u), "gamma": str(g), "lambda": str(y)})
        for f, u, g, y in rows
    ]
    return header_line() + "".join(lines)


def replay_config(path, **settings) -> Config:
    return resolve(Config(eta_schedule="replay", eta_schedule_file=str(path), **settings))


@pytest.fixture
def begin(tmp_path):
    """A function that begins a run with a file of this content: (folder, config)."""

    def run(content: str | bytes, **settings):
        path = tmp_path / "metrics.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        folder = RunFolder(tmp_path / "run")
        folder.prepare()
        config = eta_replay.pin(replay_config(path, **settings))
        eta_replay.keep(folder, config)
        folder.save_config(config)
        return folder, config

    return run


def refusal(function, *arguments, **settings) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_with_a_row_for_every_update_each_value_holds_where_it_was_used(begin):
    """The update from 100 to 180 frames used the γ and λ of the row at 180."""
    folder, config = begin(metrics((100, 1, 0.9, 1), (180, 2, 0.91, 0.9), (280, 3, 0.92, 0.8)))
    replayed = eta_replay.load(folder, config)
    used = {0: 0.9, 99: 0.9, 100: 0.91, 179: 0.91, 180: 0.92, 280: 0.92, 10**9: 0.92}
    assert {frames: replayed(frames)[0] for frames in used} == used
    assert replayed(100)[1] == 0.9


def test_with_fewer_rows_a_value_holds_from_the_last_update_before_its_row(begin):
    folder, config = begin(metrics((1000, 10, 0.9, 1), (2000, 20, 0.91, 1), (4000, 40, 0.92, 1)))
    assert eta_replay.load(folder, config).frames == (900, 1900, 3900)


def test_a_row_holds_from_the_first_update_on_its_batch(begin):
    """With `sample_reuse` all of them begin at the same frames: a row's values came one late."""
    rows = ((160, 2, 0.9, 1), (320, 4, 0.91, 1), (800, 10, 0.92, 1))
    folder, config = begin(metrics(*rows), sample_reuse=2)
    replayed = eta_replay.load(folder, config)
    assert replayed.frames == (0, 160, 640)
    # What the updates of the other run used, each of which began at these frames.
    used = {0: 0.9, 160: 0.91, 640: 0.92}
    assert {frames: replayed(frames)[0] for frames in used} == used


@pytest.mark.parametrize(
    ("reuse", "rows", "starts"),
    [
        # A recording run without reuse, whose counts say so.
        (2, ((100, 1, 0.9, 1), (200, 2, 0.91, 1)), (0, 100)),
        # One with less, or other, reuse: as far as both allow.
        (4, ((100, 2, 0.9, 1), (300, 6, 0.91, 1)), (0, 200)),
        (3, ((100, 2, 0.9, 1), (300, 6, 0.91, 1)), (50, 250)),
        (1, ((100, 2, 0.9, 1), (300, 6, 0.91, 1)), (50, 250)),
    ],
)
def test_a_row_of_a_run_with_other_reuse(begin, reuse, rows, starts):
    folder, config = begin(metrics(*rows), sample_reuse=reuse)
    assert eta_replay.load(folder, config).frames == starts


def test_three_columns_are_enough_and_hold_from_their_frames_on(begin):
    folder, config = begin("frames,gamma,lambda\n100,0.9,1\n200,0.95,0.5\n")
    replayed = eta_replay.load(folder, config)
    assert replayed(199) == (0.9, 1.0) and replayed(200) == (0.95, 0.5)


def test_rows_before_the_first_applied_update_have_no_values(begin):
    folder, config = begin(metrics((100, 1, "", ""), (200, 2, 0.9, 1)))
    replayed = eta_replay.load(folder, config)
    assert replayed.frames == (100,) and replayed.values == ((0.9, 1.0),)


WHOLE = metrics((100, 1, 0.9, 1), (200, 2, 0.91, 1))
BAD = {
    "empty": (b"", "has no row"),
    "no rows": (header_line(), "has no row"),
    "other columns": ("frames,reward\n1,2\n", "has no column gamma"),
    "no frames": ("gamma,lambda\n0.9,1\n", "damaged"),
    "an image": (bytes(range(256)) * 40, "damaged"),
    "half a line": (WHOLE[:-9], "line 3 is damaged"),
    "a letter": (WHOLE.replace("0.91", "0.9l"), "line 3 is damaged"),
    "not increasing": (metrics((100, 1, 0.9, 1), (100, 2, 0.9, 1)), "is damaged"),
    "above 1": (metrics((100, 1, 1.01, 1)), "gamma after 100 frames is 1.01; must be in [0, 1]"),
    "negative": (
        metrics((100, 1, 0.9, -0.1)),
        "lambda after 100 frames is -0.1; must be in [0, 1]",
    ),
    "nan": (metrics((100, 1, "nan", 1)), "must be in [0, 1]"),
    "infinite": (metrics((100, 1, 0.5, "inf")), "must be in [0, 1]"),
    "gamma twice": ("frames,gamma,gamma,lambda\n100,0.9,0.8,1\n", "has 2 columns gamma; must be"),
    "frames twice": ("frames,gamma,lambda,frames\n1,0.9,1,2\n", "has 2 columns frames; must be"),
    "any name twice": (
        "frames,gamma,lambda,note,note,note\n100,0.9,1,1,2,3\n",
        "has 3 columns note; must be",
    ),
    "a whole table with gamma twice": (
        WHOLE.replace("cpu_seconds", "gamma"),
        "has 2 columns gamma; must be",
    ),
    "half a frame": (
        "frames,gamma,lambda\n100,0.9,1\n200.5,0.9,1\n",
        "line 3: frames is 200.5; must be a whole number",
    ),
    "negative frames": ("frames,gamma,lambda\n-1e2,0.9,1\n", "line 2: frames is -1e2; must be"),
    "no frames at all": ("frames,gamma,lambda\nnan,0.9,1\n", "line 2: frames is nan; must be"),
    "endless frames": ("frames,gamma,lambda\n1e300,0.9,1\n", "up to 1000000000000000"),
    "half an update": (
        "frames,updates,gamma,lambda\n100,1.5,0.9,1\n",
        "line 2: updates is 1.5; must be a whole number",
    ),
    "spaces": ("frames, gamma, lambda\n100, 0.9, 1\n", "with nothing but commas between them"),
    "a space for a digit": ("frames,gamma,lambda\n100,0.9,1\n20 ,0.9,1\n", "line 3 is damaged"),
    "frames in letters": ("frames,gamma,lambda\nmany,0.9,1\n", "line 2 is damaged"),
    "half a last line": ("frames,gamma,lambda\n100,0.9,1\n200,0.9", "line 3 is damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_incomplete_table_is_refused_in_one_line(begin, tmp_path, name):
    content, expected = BAD[name]
    message = refusal(begin, content)
    assert message.startswith(f"--eta_schedule_file={tmp_path / 'metrics.csv'}: "[:100])
    assert expected in message
    assert list((tmp_path / "run").iterdir()) == []


BY_HAND = "frames,gamma,lambda\n100,0.9,1\n2000,0.95,0.5\n"
SAME = {
    "no end of the last line": BY_HAND[:-1],
    "a byte order mark": "\ufeff" + BY_HAND,
    "line ends of another system": BY_HAND.replace("\n", "\r\n"),
    "all three": "\ufeff" + BY_HAND.replace("\n", "\r\n")[:-2],
    "empty lines at the end": BY_HAND + "\n\r\n",
    "an exponent": BY_HAND.replace("2000,", "2e3,"),
    "a large exponent": BY_HAND.replace("2000,", "2E+03,"),
    "a point": BY_HAND.replace("100,", "100.0,").replace("2000,", "2000.,"),
    "a plus": BY_HAND.replace("2000,", "+2000,"),
    "underscores": BY_HAND.replace("2000,", "2_000,"),
    "frames last": "gamma,lambda,frames\r\n0.9,1,1e2\r\n0.95,0.5,2e3\r\n",
    "columns without a name": "frames,gamma,lambda,,\n100,0.9,1,,\n2000,0.95,0.5,1,2\n",
    "others besides": "note,frames,gamma,lambda\n1.5,100,0.9,1\n2.5,2000,0.95,0.5\n",
}


@pytest.mark.parametrize("kind", SAME)
def test_what_another_program_makes_of_a_file_is_read(begin, kind):
    folder, config = begin(SAME[kind])
    expected = StepFunction((100, 2000), ((0.9, 1.0), (0.95, 0.5)))
    assert eta_replay.load(folder, config) == expected
    assert folder.eta_schedule_path.read_bytes() == SAME[kind].encode()


@pytest.mark.parametrize("name", ["gamma twice", "half an update"])
def test_the_copy_of_an_older_version_may_have_what_a_start_refuses(begin, tmp_path, name):
    content, _ = BAD[name]
    folder, config = begin(WHOLE)
    folder.eta_schedule_path.write_text(content)
    digest = hashlib.sha256(content.encode()).hexdigest()
    folder.save_config(dataclasses.replace(config, eta_schedule_sha256=digest))
    loaded = eta_replay.load(folder, folder.load_config())
    assert loaded.frames == (100,) and loaded.values[0][1] == 1.0


def test_counts_of_updates_may_be_floats_too(begin):
    """A table that another program has read and written; without counts a row holds later."""
    rows = ((1000, 10, 0.9, 1), (2000, 20, 0.91, 1))
    floats = [(f"{frames:.1f}", f"{updates:.1f}", *eta) for frames, updates, *eta in rows]
    folder, config = begin(metrics(*floats))
    assert eta_replay.load(folder, config).frames == (900, 1900)


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_the_columns_of_a_whole_table_may_stand_in_any_order(begin, order):
    whole = costs((100, 0.9, 1, 0.01, 1.5), (200, 0.95, 0.5, 0.02, 0.5))
    header, *lines = [line.split(",") for line in whole.splitlines()]
    places = sorted(range(len(header)), key=header.__getitem__)
    if order == "shuffled":
        random.Random(5).shuffle(places)
    content = "".join(",".join(line[place] for place in places) + "\n" for line in (header, *lines))
    folder, config = begin(content, meta_parameters=COSTS)
    expected = StepFunction((100, 200), ((0.9, 0.01, 1.5), (0.95, 0.02, 0.5)))
    assert eta_replay.load(folder, config) == expected


def test_the_table_of_a_run_keeps_its_own_rules(tmp_path):
    """A last line without an end is half-written there, and nothing else writes such counts."""
    path = tmp_path / "metrics.csv"
    names = ",".join(COLUMNS)
    row = "100" + "," * (len(COLUMNS) - 1)
    for content, damaged in (
        (f"{names}\n{row}", [2]),
        (f"{names}\n{row.replace('100', '1e2')}\n", [2]),
        (f"{names}\n{row}\n\n", [3]),
    ):
        path.write_text(content)
        assert read_table(path).damaged == damaged


COSTS = "gamma,entropy_cost,learning_rate_factor"
OTHERS = learned_columns(COSTS.split(","))


def costs(*rows, names=("gamma", "lambda", "entropy_cost", "learning_rate_factor")) -> str:
    """A whole `metrics.csv` of a run that has learned these."""
    lines = [line_of(dict(zip(("frames", *names), map(str, row), strict=True)), OTHERS)
             for row in rows]  # fmt: skip
    return header_line(OTHERS) + "".join(lines)


def test_every_column_that_the_run_names_is_replayed_and_no_other(begin):
    whole = costs((100, 0.9, 1, 0.01, 1.5), (200, 0.95, 0.5, 0.02, 0.5))
    folder, config = begin(whole, meta_parameters=COSTS)
    expected = StepFunction((100, 200), ((0.9, 0.01, 1.5), (0.95, 0.02, 0.5)))
    assert eta_replay.load(folder, config) == expected
    for names, first in (("lambda", (1.0,)), ("learning_rate_factor,lambda", (1.0, 1.5))):
        replayed = eta_replay._parse(whole.encode(), "", resolve(Config(meta_parameters=names)))
        assert replayed(100) == first


def test_a_column_that_the_file_lacks_is_one_line(begin):
    message = refusal(begin, WHOLE, meta_parameters="gamma,rho_clip")
    assert (
        "has no column rho_clip; must be the metrics.csv of a run with all of --meta_p" in message
    )
    assert begin("frames,rho_clip\n100,1.5\n", meta_parameters="rho_clip")


@pytest.mark.parametrize(
    ("value", "settings", "expected"),
    [
        ("0.021", {}, "entropy_cost after 100 frames is 0.021; must be in [0, 0.02], the range of"),
        ("-0.001", {}, "must be in [0, 0.02]"),
        ("nan", {}, "must be in [0, 0.02]"),
        ("0.02000000", {}, None),
        ("0.0200000001", {}, None),  # the file's eight digits
        ("0.021", {"meta_parameter_ranges": "entropy_cost:0,0.1"}, None),
    ],
)
def test_a_replayed_value_lies_in_the_range_of_its_row(begin, value, settings, expected):
    """Its place there is what the network is told."""
    content = costs((100, 0.9, 1, value, 1.5))
    settings = {"meta_parameters": COSTS, "entropy_cost": 0.01} | settings
    if expected is None:
        folder, config = begin(content, **settings)
        assert eta_replay.load(folder, config)(0)[1] == float(value)
    else:
        assert expected in refusal(begin, content, **settings)


@pytest.mark.parametrize("typed", ["metrics.csv", "../here/metrics.csv", "~/metrics.csv"])
def test_the_file_is_that_of_the_start(tmp_path, monkeypatch, typed):
    """An environment may change the working directory before the copy is written."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "metrics.csv").write_text(WHOLE)
    (tmp_path / "metrics.csv").write_text(BY_HAND)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here))
    folder = RunFolder(tmp_path / "run")
    config = eta_replay.pin(replay_config(typed))
    assert os.path.samefile(config.eta_schedule_file, here / "metrics.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder.prepare()
    assert eta_replay.load(folder, config).frames == (0, 100)
    eta_replay.keep(folder, config)
    assert folder.eta_schedule_path.read_text() == WHOLE
    folder.save_config(config)
    assert folder.load_config() == config


def test_a_path_through_a_link_is_that_of_the_system(tmp_path, monkeypatch):
    """`link/..` is the folder above what the link names."""
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "far/metrics.csv").write_text(WHOLE)
    (tmp_path / "link").symlink_to(tmp_path / "far/away")
    monkeypatch.chdir(tmp_path)
    config = eta_replay.pin(replay_config("link/../metrics.csv"))
    assert os.path.samefile(config.eta_schedule_file, tmp_path / "far/metrics.csv")


def test_a_folder_whose_name_no_setting_holds_leaves_the_path_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "no\u00a0break").mkdir()
    monkeypatch.chdir(tmp_path / "no\u00a0break")
    with open("metrics.csv", "w") as file:
        file.write(WHOLE)
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    config = eta_replay.pin(replay_config("metrics.csv"))
    eta_replay.keep(folder, config)
    folder.save_config(config)
    assert folder.load_config() == config and config.eta_schedule_file == "metrics.csv"


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "tilde"])
def test_a_path_that_is_not_a_file_is_refused_in_one_line(tmp_path, kind):
    path = tmp_path / "metrics.csv"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "tilde":
        path = "~nobody_of_that_name/metrics.csv"
    assert "cannot be read" in refusal(eta_replay.pin, replay_config(path))


def test_the_copy_is_read_when_the_original_is_gone_or_other(begin, tmp_path):
    folder, config = begin(WHOLE)
    assert config.eta_schedule_sha256 == hashlib.sha256(WHOLE.encode()).hexdigest()
    assert folder.eta_schedule_path.read_text() == WHOLE
    before = eta_replay.load(folder, folder.load_config())
    (tmp_path / "metrics.csv").write_text(metrics((100, 1, 0.1, 1)))
    eta_replay.keep(folder, config)  # of a continued run
    assert eta_replay.load(folder, config) == before
    (tmp_path / "metrics.csv").unlink()
    assert eta_replay.load(folder, config) == before


@pytest.mark.parametrize("damage", ["changed", "removed"])
def test_a_copy_that_is_not_the_one_of_the_start_is_refused(begin, damage):
    folder, config = begin(WHOLE)
    if damage == "changed":
        folder.eta_schedule_path.write_text(WHOLE.replace("0.91", "0.92"))
        expected = f"its SHA-256 must be {config.eta_schedule_sha256}"
    else:
        folder.eta_schedule_path.unlink()
        expected = "cannot be read"
    message = refusal(eta_replay.load, folder, config)
    assert str(folder.eta_schedule_path) in message and expected in message


def test_a_file_that_changes_while_a_run_begins_is_refused(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(WHOLE)
    config = eta_replay.pin(replay_config(path))
    path.write_text(WHOLE.replace("0.91", "0.92"))
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    assert "must be that of --eta_schedule_sha256=" in refusal(eta_replay.keep, folder, config)


def test_before_a_run_begins_the_file_itself_is_read(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(WHOLE)
    config = eta_replay.pin(replay_config(path))
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    found = eta_replay.load(folder, config)
    assert found is not None and not folder.eta_schedule_path.exists()
    folder.eta_schedule_path.write_text("of an earlier start")
    assert eta_replay.load(folder, config) == found
    eta_replay.keep(folder, config)
    path.unlink()
    assert eta_replay.load(folder, config) == found


def test_a_given_digest_is_compared(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(WHOLE)
    digest = eta_replay.pin(replay_config(path)).eta_schedule_sha256
    assert eta_replay.pin(replay_config(path, eta_schedule_sha256=digest))
    other = replay_config(path, eta_schedule_sha256="0" * 64)
    assert "must be that of --eta_schedule_sha256=000" in refusal(eta_replay.pin, other)


def test_other_schedules_have_no_file(tmp_path):
    config = resolve(Config())
    folder = RunFolder(tmp_path)
    assert eta_replay.pin(config) is config
    eta_replay.keep(folder, config)
    assert eta_replay.load(folder, config) is None
    assert not folder.eta_schedule_path.exists()


def test_a_symbolic_link_instead_of_the_copy_is_refused(tmp_path):
    (tmp_path / "elsewhere.csv").write_text(WHOLE)
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.eta_schedule_path.symlink_to(tmp_path / "elsewhere.csv")
    assert "symbolic link" in refusal(folder.prepare)


def test_the_digest_is_added_to_the_config_and_nothing_else_changes(begin):
    _, config = begin(WHOLE)
    unpinned = dataclasses.replace(config, eta_schedule_sha256="")
    assert unpinned == replay_config(config.eta_schedule_file)
