"""Flags that the chosen mode of a command would ignore are refused in one line (command)."""

import pytest
from absl import flags
from support.command_helpers import refused, run_module
from support.run_helpers import files_of, make_config

import meta_impala
from meta_impala import doctor, evaluate, record_starts, watch
from meta_impala.config import Config
from meta_impala.errors import UserError
from meta_impala.evaluation import live_window
from meta_impala.evaluation import starts as game_starts
from meta_impala.evaluation.starts import Start


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of Catch."""
    folder = tmp_path_factory.mktemp("runs") / "catch"
    meta_impala.make_trainer(make_config(meta_parameters="none"), folder).run()
    return folder


@pytest.fixture
def parsed():
    """Defines the flags of a command in this process and parses some."""
    own = set()

    def parsed(command, *arguments):
        before = set(flags.FLAGS)
        command.define_flags()
        own.update(set(flags.FLAGS) - before)
        return flags.FLAGS([command.__name__, *arguments])[1:]

    yield parsed
    for name in own:
        delattr(flags.FLAGS, name)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--best", "--best=True: needs --logdir, the folder of a run"),
        ("--override", "--override=True: needs --out=FILE beside --agent"),
        (
            "--max_episode_frames=1M",
            "--max_episode_frames=1000000: must be at most 108000, the time limit of the environ",
        ),
    ],
)
def test_evaluate_refuses_what_an_agent_has_not(parsed, tmp_path, argument, message):
    out = [] if argument == "--override" else [f"--out={tmp_path / 'x.json'}"]
    arguments = parsed(evaluate, "--agent=pong", argument, *out)
    with pytest.raises(UserError) as caught:
        evaluate._inputs(arguments)
    assert str(caught.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_the_limit_of_evaluated_games_is_at_most_that_of_the_environment(parsed):
    pong, cartpole, catch = (Config(environment=name) for name in ("Pong", "CartPole-v1", "Catch"))
    parsed(evaluate, "--max_episode_frames=501")
    assert evaluate._max_episode_frames(pong) == evaluate._max_episode_frames(catch) == 501
    with pytest.raises(UserError, match="--max_episode_frames=501: must be at most 500"):
        evaluate._max_episode_frames(cartpole)
    for flag, config in (("500", cartpole), ("108000", pong), ("10M", catch)):
        flags.FLAGS["max_episode_frames"].parse(flag)
        assert evaluate._max_episode_frames(config) == flags.FLAGS.max_episode_frames


def test_a_limit_within_a_start_is_refused(parsed, tmp_path):
    file = tmp_path / "starts.json"
    starts = [Start(1, (0,) * steps) for steps in (20, 50, 30)]
    game_starts.write_starts(
        file,
        environment="ALE/Pong-v5",
        protocol="impala",
        recorded_from="nobody",
        made_with={},
        starts=starts,
    )
    human = ["--agent=pong", "--starts=human", f"--starts_file={file}"]
    arguments = parsed(evaluate, *human, "--max_episode_frames=200")
    with pytest.raises(UserError, match="--max_episode_frames=200: must be above 200, the frames"):
        evaluate._inputs(arguments)
    flags.FLAGS["max_episode_frames"].parse("204")
    assert evaluate._inputs(arguments).starts == starts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--environment=Breakout"], "--environment=Breakout: must be that of the run in --logdir"),
        (["--environment=Cach"], "--environment=Cach: unknown environment 'Cach'"),
        (["--protocol=machado"], "--protocol=machado: must be that of the run in --logdir, impala"),
        (["--frames_per_second=9"], "--frames_per_second=9.0: has no effect with --logdir"),
    ],
)
def test_record_refuses_flags_of_a_person_where_an_agent_plays(
    trained, tmp_path, arguments, message
):
    before = files_of(trained)
    out = f"--out={tmp_path / 'starts.json'}"
    refusal = refused("meta_impala.record_starts", f"--logdir={trained}", out, *arguments)
    assert refusal.startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == [] and files_of(trained) == before


def test_record_takes_the_name_of_the_environment_of_the_run(trained, tmp_path):
    out = tmp_path / "starts.json"
    given = ["--environment=catch", "--protocol=impala", "--games=2", "--starts=3", f"--out={out}"]
    result = run_module("meta_impala.record_starts", f"--logdir={trained}", *given)
    assert result.returncode == 0, result.stderr
    assert out.exists()


def test_record_refuses_flags_of_an_agent_where_a_person_plays(parsed, tmp_path):
    parsed(record_starts, "--environment=Catch", "--games=3", f"--out={tmp_path / 'x.json'}")
    with pytest.raises(UserError, match="^--games=3: has no effect without --logdir"):
        record_starts.main()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argument", ["--steps=64", "--seed=3"])
def test_doctor_refuses_flags_of_games_that_are_not_played(parsed, argument):
    arguments = parsed(doctor, "somewhere", "--nobatch", argument)
    with pytest.raises(UserError, match=f"^{argument}: has no effect with --nobatch"):
        doctor.main(arguments)


def test_watch_refuses_a_port_for_a_window_and_shows_a_page_for_one(parsed, monkeypatch):
    monkeypatch.setattr(live_window, "why_not", lambda: "")
    arguments = parsed(watch, "--agent=pong", "--noweb", "--port=8000")
    with pytest.raises(UserError, match=r"^--port=8000: has no effect on a window \(--noweb\)"):
        watch._check_flags(arguments)
    flags.FLAGS["web"].unparse()
    assert watch._check_flags(arguments) is None and watch._is_page()
    flags.FLAGS["port"].unparse()
    assert not watch._is_page()
