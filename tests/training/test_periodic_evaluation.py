"""Evaluation while training: what is played, what it must not change, and the best checkpoint."""

import csv
import dataclasses
import json
import math
import os
import shutil
import signal
import threading

import numpy as np
import pytest
from support.run_helpers import (
    BATCH_FRAMES,
    make_config,
    make_trainer,
    numbers,
    read_metrics,
    read_status,
)

import meta_impala
from meta_impala.config import AgentSettings
from meta_impala.environments import registry
from meta_impala.environments.catch import Catch
from meta_impala.errors import RunFailed, UserError
from meta_impala.evaluation import record, starts
from meta_impala.evaluation.games import GamePolicy, play_games
from meta_impala.storage.checkpoint import list_checkpoints, verify
from meta_impala.storage.trained_agent import load_agent
from meta_impala.system.signals import StopRequest
from meta_impala.training import periodic_evaluation
from meta_impala.training.evaluation_table import COLUMNS, Evaluation, EvaluationTable
from meta_impala.training.metrics import NOT_REPRODUCIBLE
from meta_impala.training.periodic_evaluation import GamePlayer, evaluation_seed

SETTINGS = {
    "evaluation_frames": 3 * BATCH_FRAMES,
    "evaluation_episodes": 4,
    "keep_best_checkpoint": True,
}
# For what has nothing to do with η: the plain update is traced in half the time.
PLAIN = SETTINGS | {"meta_parameters": "none"}


def read_evaluations(path) -> list[dict[str, str]]:
    with open(path / "evaluations.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def reproducible(rows, *names) -> list[dict[str, str]]:
    return [{n: v for n, v in row.items() if n not in (*names, *NOT_REPRODUCIBLE)} for row in rows]


def test_a_deterministic_run_is_the_same_with_evaluations(tmp_path):
    config = make_config(deterministic=True, core="lstm", core_size=4)
    plain = make_trainer(tmp_path / "plain", config)
    plain.run()
    evaluated = make_trainer(tmp_path / "evaluated", dataclasses.replace(config, **SETTINGS))
    evaluated.run()
    for one, two in zip(numbers(plain.learner.state), numbers(evaluated.learner.state),
                        strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, two)
    found = [reproducible(read_metrics(tmp_path / name)) for name in ("plain", "evaluated")]
    assert found[0] == found[1]
    rows = read_evaluations(tmp_path / "evaluated")
    assert [int(row["frames"]) for row in rows] == [n * BATCH_FRAMES for n in (3, 6, 9)]
    assert all(row["episodes"] == "4" and -1 <= float(row["mean_return"]) <= 1 for row in rows)
    assert not (tmp_path / "plain" / "evaluations.csv").exists()


def test_games_without_a_finite_return_are_left_out_and_said_so_once(tmp_path, monkeypatch, capfd):
    def play(*arguments, **keywords):
        games = zip(play_games(*arguments, **keywords), (1.0, math.nan, math.inf, 0.5), strict=True)
        return [game._replace(episode_return=number) for game, number in games]

    monkeypatch.setattr(periodic_evaluation, "play_games", play)
    make_trainer(tmp_path, make_config(deterministic=True, **PLAIN)).run()
    rows = read_evaluations(tmp_path)
    assert [(row["episodes"], float(row["mean_return"])) for row in rows] == [("2", 0.75)] * 3
    said = [line for line in capfd.readouterr().err.splitlines() if "left out" in line]
    at = f"{3 * BATCH_FRAMES:,} frames"
    assert len(said) == 1 and f"2 of 4 games of the evaluation at {at} are not finite" in said[0]


class StopAtUpdate(StopRequest):
    """Asks to stop after so many updates, or in the middle of the games there."""

    def __init__(self, updates: int, polls: int) -> None:
        super().__init__()
        self.trainer = None
        self._updates, self._polls = updates, polls

    def is_set(self) -> bool:
        if self.trainer is None or self.trainer.updates < self._updates:
            return False
        self._polls -= 1
        return self._polls < 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that was not stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    make_trainer(folder, make_config(deterministic=True, **PLAIN)).run()
    return folder


@pytest.mark.parametrize("polls", [0, 1, 5])
def test_a_stop_in_the_middle_of_games_changes_no_row(tmp_path, whole, polls):
    config = make_config(deterministic=True, **PLAIN)
    stop = StopAtUpdate(6, polls)
    stop.trainer = make_trainer(tmp_path / "pieces", config, stop)
    assert stop.trainer.run() == "stopped" and stop.trainer.updates == 6
    assert len(read_evaluations(tmp_path / "pieces")) == 1
    make_trainer(tmp_path / "pieces", config).run()
    found = [
        reproducible(read_evaluations(folder), "seconds") for folder in (whole, tmp_path / "pieces")
    ]
    assert found[0] == found[1]


def _made_by_a_program(path, config, stop=None):
    return meta_impala.make_trainer(config, path, stop)


@pytest.mark.parametrize(
    ("make", "deterministic", "polls"),
    [
        (make_trainer, True, 0),
        (make_trainer, True, 5),
        (make_trainer, False, 5),
        (_made_by_a_program, True, 5),
    ],
)
def test_a_stop_in_the_last_games_leaves_them_to_the_next_start(
    tmp_path, make, deterministic, polls
):
    total = 9 * BATCH_FRAMES
    config = make_config(deterministic=deterministic, total_frames=total, **PLAIN)
    stop = StopAtUpdate(9, polls)
    stop.trainer = make(tmp_path, config, stop)
    assert stop.trainer.run() == "stopped"
    status = read_status(tmp_path)
    assert (status["state"], status["frames"]) == ("stopped", total)
    # Games beside the training may all be given up.
    before = read_evaluations(tmp_path) if (tmp_path / "evaluations.csv").exists() else []
    assert all(int(row["frames"]) < total for row in before)
    continued = make(tmp_path, config)
    assert (continued.frames, continued.run()) == (total, "finished")
    assert read_status(tmp_path)["state"] == "finished"
    rows = read_evaluations(tmp_path)
    assert rows[:-1] == before and int(rows[-1]["frames"]) == total


def test_a_stop_after_the_last_games_ends_a_finished_run(tmp_path):
    config = make_config(deterministic=True, **PLAIN)  # 10 updates; evaluations at 3, 6 and 9
    stop = StopAtUpdate(10, 0)
    stop.trainer = make_trainer(tmp_path, config, stop)
    assert stop.trainer.run() == "finished" and stop.is_set()
    assert len(read_evaluations(tmp_path)) == 3


def test_the_games_are_those_of_an_evaluation_and_the_best_weights_are_kept(tmp_path):
    config = make_config(deterministic=True, total_frames=20 * BATCH_FRAMES, **SETTINGS)
    trainer = make_trainer(tmp_path, config)
    trainer.run()
    rows = read_evaluations(tmp_path)
    returns = [float(row["mean_return"]) for row in rows]
    best = rows[returns.index(max(returns))]
    (kept,) = list_checkpoints(tmp_path / "checkpoints_best")
    assert kept.name == f"frames-{best['frames']}"
    verify(kept)
    assert [path.name for path in (tmp_path / "checkpoints_best").iterdir()
            if path.name.startswith("frames-")] == [kept.name]  # fmt: skip

    config = trainer.config
    description = registry.describe(config.environment, config.protocol)
    agent = load_agent(tmp_path / "checkpoints_best", config, description)
    assert agent.frames == int(best["frames"])
    np.testing.assert_allclose(
        [float(best["gamma"]), float(best["lambda"])], agent.snapshot.eta.values, rtol=1e-6
    )
    seed = evaluation_seed(config.seed, agent.frames // config.evaluation_frames)
    environments = [registry.make(config.environment, 1, config.protocol) for _ in range(2)]
    games = play_games(
        GamePolicy(agent.network, config.part(AgentSettings), description, 2),
        agent.snapshot,
        environments,
        ((n, starts.Start(starts.game_seeds(seed, n)[0])) for n in range(4)),
        seed,
    )
    assert np.mean([game.episode_return for game in games]) == float(best["mean_return"])


def test_evaluations_beside_the_training(tmp_path):
    config = make_config(total_frames=200 * BATCH_FRAMES, **PLAIN)
    trainer = make_trainer(tmp_path, config)
    assert trainer.run() == "finished"
    frames = [int(row["frames"]) for row in read_evaluations(tmp_path)]
    assert frames == sorted(set(frames)) and frames[0] >= 3 * BATCH_FRAMES
    # The last one is waited for, and those that were due meanwhile were left out.
    assert frames[-1] // config.evaluation_frames == trainer.frames // config.evaluation_frames
    (kept,) = list_checkpoints(tmp_path / "checkpoints_best")
    assert int(kept.name.split("-")[1]) in frames
    assert [path.name for path in (tmp_path / "checkpoints_best" / "candidate").iterdir()] in (
        [], [f"frames-{frames[-1]}"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("deterministic", "error"),
    [
        (False, ValueError("no more games")),
        (True, ValueError("no more games")),
        (False, SystemExit(0)),
        (False, KeyboardInterrupt()),
        (True, SystemExit(0)),
        (True, KeyboardInterrupt()),
    ],
)
def test_games_that_raise_do_not_end_the_training(
    tmp_path, monkeypatch, capfd, deterministic, error
):
    def make(*arguments, **named):
        if "min_noops" in named:
            raise error
        return original(*arguments, **named)

    original = registry.make
    monkeypatch.setattr(registry, "make", make)
    trainer = make_trainer(tmp_path, make_config(deterministic=deterministic, **PLAIN))
    assert trainer.run() == "finished"
    assert read_status(tmp_path)["state"] == "finished"
    warnings = capfd.readouterr().err
    assert "the evaluation at" in warnings and type(error).__name__ in warnings
    assert not (tmp_path / "evaluations.csv").exists()


def test_an_end_of_the_program_by_its_handler_of_a_signal_is_no_fault_of_a_game(
    tmp_path, monkeypatch, capfd
):
    """It was taken for an exception of the environment, and the training went on."""
    begin, once = starts.begin, iter([True])

    def begin_and_signal(*given):
        if next(once, False):
            os.kill(os.getpid(), signal.SIGTERM)
        return begin(*given)

    def leave(*_):
        raise SystemExit(7)

    trainer = make_trainer(tmp_path, make_config(deterministic=True, **PLAIN))
    monkeypatch.setattr(starts, "begin", begin_and_signal)
    before = signal.signal(signal.SIGTERM, leave)
    try:
        with pytest.raises(RunFailed, match=r"SystemExit\(7\)"):
            trainer.run()
    finally:
        signal.signal(signal.SIGTERM, before)
    status = read_status(tmp_path)
    assert (status["state"], status["frames"]) == ("failed", 3 * BATCH_FRAMES)
    assert "was abandoned" not in capfd.readouterr().err


def test_a_mixture_plays_at_the_chosen_eta(tmp_path):
    shared = {"deterministic": True, "eta_schedule": "mixture", "gamma": 0.9, "lambda_": 0.8}
    etas = {}
    for name, given in (("default", ""), ("chosen", "0.98,0.9")):
        config = make_config(**shared, **SETTINGS, evaluation_eta=given)
        make_trainer(tmp_path / name, config).run()
        row = read_evaluations(tmp_path / name)[0]
        etas[name] = (float(row["gamma"]), float(row["lambda"]))
    np.testing.assert_allclose(etas["default"], [0.9, 0.8], rtol=1e-6)
    np.testing.assert_allclose(etas["chosen"], [0.98, 0.9], rtol=1e-6)


def test_rows_after_the_restored_checkpoint_are_cut(tmp_path, capfd):
    config = make_config(deterministic=True, checkpoint_frames=4 * BATCH_FRAMES, **PLAIN)
    make_trainer(tmp_path, config).run()
    whole = reproducible(read_evaluations(tmp_path), "seconds")
    for frames in (8, 10):
        shutil.rmtree(tmp_path / "checkpoints" / f"frames-{frames * BATCH_FRAMES}",
                      ignore_errors=True)  # fmt: skip
    trainer = make_trainer(tmp_path, config)
    assert trainer.frames == 4 * BATCH_FRAMES
    trainer.run()
    assert reproducible(read_evaluations(tmp_path), "seconds") == whole
    (kept,) = list_checkpoints(tmp_path / "checkpoints_best")
    best = max(float(row["mean_return"]) for row in whole)
    first_best = next(row for row in whole if float(row["mean_return"]) == best)
    assert kept.name == f"frames-{first_best['frames']}"


@pytest.mark.parametrize(("again", "best"), [(2.0, 3.0), (3.0, 3.0), (4.0, 4.0)])
def test_the_best_checkpoint_of_a_lost_part_stays_until_one_is_better(
    tmp_path, monkeypatch, again, best
):
    returns = iter([1.0, 3.0, 2.0, again, 2.5])

    def play(self, snapshot, frames, seed, should_stop):
        return Evaluation(frames, next(returns), 0.0, 1, 0.9, 0.9, 1.0)

    monkeypatch.setattr(GamePlayer, "play", play)
    config = make_config(deterministic=True, checkpoint_frames=4 * BATCH_FRAMES, **PLAIN)
    make_trainer(tmp_path, config).run()
    for frames in (8, 10):  # as after a kill
        shutil.rmtree(tmp_path / "checkpoints" / f"frames-{frames * BATCH_FRAMES}",
                      ignore_errors=True)  # fmt: skip
    trainer = make_trainer(tmp_path, config)
    assert trainer.frames == 4 * BATCH_FRAMES
    trainer.run()
    (kept,) = list_checkpoints(tmp_path / "checkpoints_best")
    verify(kept)
    assert kept.name == f"frames-{6 * BATCH_FRAMES}"
    assert json.loads((kept / "evaluation.json").read_text("utf-8")) == {"mean_return": best}


_WITHOUT_A_MEAN = f"{','.join(COLUMNS)}\n" + "".join(
    f"{n * BATCH_FRAMES},{mean},0.1,4,0.99,0.9,1\n" for n, mean in ((3, ""), (6, "nan"), (9, "inf"))
)


@pytest.mark.parametrize(
    "table", [None, "frames,mean", "a table\nof something else\n", _WITHOUT_A_MEAN]
)
def test_without_its_row_the_best_checkpoint_is_kept(tmp_path, whole, capfd, table):
    folder = shutil.copytree(whole, tmp_path / "run")
    (best,) = list_checkpoints(folder / "checkpoints_best")
    (best / "evaluation.json").unlink()  # as of an earlier version
    path = folder / "evaluations.csv"
    path.unlink()
    if table is not None:
        path.write_text(table, "utf-8")
    config = make_config(deterministic=True, total_frames=11 * BATCH_FRAMES, **PLAIN)
    make_trainer(folder, config).run()
    said = capfd.readouterr().err
    assert f"{best}: its evaluation is not in the table" in said and "removed" not in said
    kept = folder / "checkpoints_best" / f"{best.name}.unrated"
    assert verify(kept)["progress"]
    (newest,) = list_checkpoints(folder / "checkpoints_best")
    assert [f"frames-{row['frames']}" for row in read_evaluations(folder)] == [newest.name]
    aside = folder / "evaluations.csv.damaged"
    assert (aside.read_text("utf-8") if aside.exists() else None) == table
    assert ("the file is kept as evaluations.csv.damaged" in said) == (table is not None)


def test_a_stop_abandons_games_in_a_slow_environment(tmp_path, monkeypatch):
    stop = StopRequest()
    reset, count = Catch.reset, iter(range(10**9))

    def counted(self, **named):
        if next(count) > 40:
            stop.request("the test")
        return reset(self, **named)

    monkeypatch.setattr(Catch, "reset", counted)
    settings = PLAIN | {"evaluation_episodes": 1000}
    trainer = make_trainer(tmp_path, make_config(total_frames=10**9, **settings), stop)
    assert trainer.run() == "stopped"
    assert read_status(tmp_path)["state"] == "stopped"


@pytest.fixture
def hanging_games(monkeypatch):
    """The games of every evaluation hang until it is set."""
    release = threading.Event()
    begin = starts.begin
    monkeypatch.setattr(starts, "begin", lambda *given: release.wait(120) and begin(*given))
    monkeypatch.setattr(periodic_evaluation, "_SECONDS_TO_END", 0.1)
    yield release
    release.set()


def test_games_that_hang_do_not_block_the_end_of_a_run(tmp_path, capfd, hanging_games):
    config = make_config(**PLAIN, stall_timeout=2.0)
    trainer = make_trainer(tmp_path, config)
    assert trainer.run() == "finished"
    assert capfd.readouterr().err.count("made no step for 2 s (--stall_timeout)") == 1
    status = read_status(tmp_path)
    assert (status["state"], status["frames"]) == ("finished", config.total_frames)


def test_games_that_hang_in_a_deterministic_run_end_it_and_the_next_start_plays_them(
    tmp_path, hanging_games
):
    """It would be finished without them, and its score would be of the first games alone."""
    config = make_config(deterministic=True, **PLAIN, stall_timeout=2.0)
    with pytest.raises(RunFailed, match=r"no step for 2 s \(--stall_timeout\) from an evaluation"):
        make_trainer(tmp_path, config).run()
    assert read_status(tmp_path)["state"] == "failed"
    assert "thread evaluation:" in (tmp_path / "stacks.txt").read_text("utf-8")
    hanging_games.set()
    assert make_trainer(tmp_path, config).run() == "finished"
    found = [int(row["frames"]) for row in read_evaluations(tmp_path)]
    assert found == [n * BATCH_FRAMES for n in (3, 6, 9)]


def test_the_table_survives_damage(tmp_path, capsys):
    path = tmp_path / "evaluations.csv"
    table = EvaluationTable(path, 0)
    first = Evaluation(100, 1.5, 0.25, 4, 0.99, 0.98, 2.0)
    second = Evaluation(200, 1.5, math.nan, 1, math.nan, math.nan, 2.0)
    table.add(first)
    table.add(second)
    assert path.read_text("utf-8").splitlines()[0] == ",".join(COLUMNS)
    again = EvaluationTable(path, 200)
    assert again.rows[0] == first
    assert (again.return_at(100), again.return_at(None)) == (1.5, -math.inf)
    assert math.isnan(again.rows[1].standard_error) and again.rows[1].episodes == 1
    assert EvaluationTable(path, 150).rows == [first]
    damaged = path.read_text("utf-8") + "150,x,0.1,1,0.9,0.9,1\n"
    path.write_text(damaged, "utf-8")
    assert EvaluationTable(path, 200).rows == [first]
    assert (tmp_path / "evaluations.csv.damaged").read_text("utf-8") == damaged
    assert capsys.readouterr().err == (
        f"warning: {path}: 1 of 2 lines are damaged and left out (line 3); the file is kept as "
        "evaluations.csv.damaged\n"
    )
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))  # of another system
    assert EvaluationTable(path, 200).rows == [first]
    assert capsys.readouterr().err == ""
    path.unlink()
    path.mkdir()
    with pytest.raises(RunFailed, match="evaluations.csv: cannot be read"):
        EvaluationTable(path, 200)


@pytest.mark.parametrize("mean", ["", "nan", "inf", "-inf", "1e999"])
def test_a_row_without_a_mean_is_damaged(tmp_path, capsys, mean):
    path = tmp_path / "evaluations.csv"
    EvaluationTable(path, 0).add(Evaluation(100, 1.5, 0.25, 4, 0.99, 0.98, 2.0))
    path.write_text(f"{path.read_text('utf-8')}200,{mean},0.1,4,0.9,0.9,1\n", "utf-8")
    table = EvaluationTable(path, 300)
    assert [row.frames for row in table.rows] == [100]
    assert table.return_at(200) == -math.inf
    assert "(line 3); the file is kept as evaluations.csv.damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_best_checkpoint": True}, "--keep_best_checkpoint=True: needs --evaluation_frames"),
        ({"evaluation_eta": "0.9"}, "--evaluation_eta=0.9: must be GAMMA,LAMBDA"),
        ({"evaluation_eta": "nan,1"}, "--evaluation_eta=nan,1: must be GAMMA,LAMBDA"),
        ({"evaluation_eta": "0.9,1", "eta_embedding_size": 0}, "would have no effect"),
        ({"evaluation_eta": "0.9,1", "meta_parameter_scope": "state"}, "must be empty"),
        ({"evaluation_episodes": 0}, "--evaluation_episodes=0"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(UserError) as caught:
        make_config(**settings)
    assert message in str(caught.value)


def test_a_game_without_an_end_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "DEFAULT_MAX_EPISODE_FRAMES", 30)
    config = make_config(
        environment="support.endless:support/Endless-v0",
        meta_parameters="none",
        deterministic=True,
        evaluation_frames=5 * BATCH_FRAMES,
        evaluation_episodes=2,
    )
    assert make_trainer(tmp_path, config).run() == "finished"
    assert [row["mean_return"] for row in read_evaluations(tmp_path)] == ["30", "30"]
