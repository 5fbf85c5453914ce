"""Every flag at its edges, of wrong types, in contradictory pairs (property; and as processes): a
clear error or a config that runs, never a traceback, never a hang."""

import json
import subprocess
import sys

import pytest
from absl import flags
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meta_impala import config as config_lib
from meta_impala.config import FIELDS, Config, field_type
from meta_impala.config.flags import define_config_flags, given_config_flags, parse_flags
from meta_impala.errors import UserError


def _edges(name: str) -> list[str]:
    """Text for a flag: its default, its edges and just beyond, its choices."""
    field = FIELDS[name]
    kind, _ = field_type(field)
    texts = [] if field.default is None else [str(field.default)]
    texts += field.metadata["choices"]
    for edge in (field.metadata["low"], field.metadata["high"]):
        if edge is not None:
            texts += [str(kind(edge)), str(kind(edge) + 1), str(kind(edge) - 1)]
    if kind is bool:
        texts += ["true", "false", "maybe"]
    texts += {
        "mlp_sizes": ["8", "8,8,8", "8,", "0", "-3", "65536", "65537", "8;8"],
        "num_actors": ["auto"],
        "envs_per_actor": ["auto"],
        "learner_device": ["cpu", "gpu", "gpu:0", "gpu:x", "auto:1", "cpu:99999999999", "gpu:²"],
        "ray_address": ["auto", "local", "head:6379", "ray://head:10001", ":", "head:²"],
        "learner_addresses": [
            "a:1,b:2",
            "a:1,b:2,c:3",
            "a:1",
            "a:1,a:1",
            "a",
            ":1",
            "a:0",
            ",",
            "a:65536,b:1",
            "a:²",
            "[::1]:80,b:2",
        ],
        "environment": ["Catch", "Pong", "pnog", "no_such_module:Env-v0", ":", "json:x"],
    }.get(name, [])
    return texts or ["1"]


_NO_VALUES = ["", "x", "nan", "inf", "-inf", "-1", "1e3", "2.5", "1" * 400, "0x10", "é\n", "1e400",
              "2.5k", "10M", "1e9999", "1_000", "\u200bCatch", "\ud800", "x" * 5000]  # fmt: skip


def _assignments():
    """Up to four flags, each with some text."""
    names = sorted(FIELDS)
    edges = [(name, text) for name in names for text in _edges(name)]
    other = st.tuples(st.sampled_from(names), st.sampled_from(_NO_VALUES) | st.text(max_size=5))
    one = st.sampled_from(edges) | st.sampled_from(edges) | other
    return st.lists(one, min_size=1, max_size=4)


@pytest.fixture(scope="module")
def parse():
    """Parses a command line as a command does, with flags of its own."""
    before = set(flags.FLAGS)
    if "batch_size" not in before:
        define_config_flags()
    mine = set(flags.FLAGS) - before

    def parse(arguments):
        for name in FIELDS:
            flags.FLAGS[name].unparse()
        parse_flags(["train", *arguments])
        return given_config_flags()

    yield parse
    for name in mine:
        delattr(flags.FLAGS, name)


# What `test_random_flags_give_a_config_or_a_refusal_in_one_line` came upon.
CASES = {"good": 0, "refused": 0}


@settings(
    max_examples=900,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(assignments=_assignments(), shape=st.sampled_from([(4, 84, 84), (10, 5), (4,), (3, 7, 7)]))
def test_random_flags_give_a_config_or_a_refusal_in_one_line(parse, assignments, shape):
    try:
        values = parse([f"--{name}={text}" for name, text in assignments])
    except UserError as error:
        CASES["refused"] += 1
        assert str(error).startswith("--")
        assert "\n" not in str(error)
        return
    try:
        config = Config(**{FIELDS[name].name: value for name, value in values.items()})
        config = config_lib.resolve(config)
        config_lib.check_frames(config, 4)
        config = config_lib.resolve_network(config, shape)
    except UserError as error:
        CASES["refused"] += 1
        assert str(error).startswith("--")
        assert "\n" not in str(error)
        return
    CASES["good"] += 1
    # What was accepted can be saved, read again, continued, and divides into whole batches.
    text = config_lib.to_json(config)
    assert config_lib.from_json(text, "config.json") == config_lib.without_addresses(config)
    places = {
        name: getattr(config, field.name)
        for name, field in FIELDS.items()
        if field.metadata["from_command_line_only"]
    }
    assert config_lib.merge_for_resume(config, places, override=False) == config
    assert config.batch_size % config.block_size == 0
    assert config.envs_per_actor % config.block_size == 0
    assert all(width >= 1 for width in config.mlp_widths)


def test_the_random_flags_were_both_accepted_and_refused():
    assert CASES["good"] >= 150
    assert CASES["refused"] >= 500


# What JSON can hold that no value of this program is; as text, since Python writes no such thing.
_RAW = [
    "1" + "0" * 400, "-" + "9" * 4000, "9" * 10_000, "1e400", "-1e400", "1e-400", "NaN",
    "-Infinity", "[" * 500 + "]" * 500, '{"a":' * 300 + "1" + "}" * 300, '"\\ud800"', '"\\u0000"',
    '"\\u202e"', '"' + "x" * 9000 + '"', "[" + "1," * 5000 + "1]", "2.0", "-0.0", "1e0", "true",
    "null", "[]", "{}", '""', '"x"', "0", "-1", "1", "0.5", "false",
]  # fmt: skip

_OTHERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
).map(json.dumps)

DEFAULTS = json.loads(config_lib.to_json(config_lib.resolve(Config())))


def _read_or_refuse(values):
    """Reads a file of these keys and texts of values."""
    text = ",".join(f"{json.dumps(name)}: {value}" for name, value in values.items())
    try:
        config = config_lib.from_json("{" + text + "}", "somewhere/config.json")
    except UserError as error:
        assert str(error).startswith("somewhere/config.json: ")
        assert str(error).isprintable() and len(str(error)) < 1000
        return
    assert config_lib.resolve(config, is_stored=True) == config
    assert config_lib.from_json(config_lib.to_json(config), "config.json") == config


@settings(max_examples=400, deadline=1000, derandomize=True)
@given(
    changes=st.dictionaries(
        st.sampled_from(sorted(FIELDS)) | st.text(max_size=5),
        st.integers(0, len(_RAW) - 1).map(_RAW.__getitem__) | _OTHERS,
        max_size=3,
    ),
    dropped=st.sets(st.sampled_from(sorted(FIELDS)), max_size=1),
)
def test_a_fuzzed_config_file_is_read_or_refused_in_one_line(changes, dropped):
    values = {name: json.dumps(value) for name, value in DEFAULTS.items() if name not in dropped}
    _read_or_refuse(values | changes)


@pytest.mark.parametrize("name", FIELDS)
def test_any_value_of_any_setting_in_a_file_is_read_or_refused_in_one_line(name):
    values = {other: json.dumps(value) for other, value in DEFAULTS.items()}
    for value in _RAW:
        _read_or_refuse(values | {name: value})


def test_a_truncated_file_is_refused_in_one_line():
    text = config_lib.to_json(config_lib.resolve(Config()))
    for cut in range(0, len(text) - 2, 37):
        with pytest.raises(UserError, match=r"^somewhere/config.json: not valid JSON") as caught:
            config_lib.from_json(text[:cut], "somewhere/config.json")
        assert "\n" not in str(caught.value)


RUN = ("--environment=Catch", "--total_frames=400", "--log_frames=100")
SMALL = (*RUN, "--batch_size=4", "--envs_per_actor=4", "--meta_batch_size=2", "--unroll_length=5",
         "--mlp_sizes=4")  # fmt: skip
_PROCESSES = [
    # What runs, at an edge.
    (0, [*SMALL, "--unroll_length=1", "--batch_size=1", "--envs_per_actor=1",
         "--meta_batch_size=1", "--num_actors=1", "--queue_capacity=1"]),
    (0, [*SMALL, "--gamma=0", "--lambda=0", "--meta_parameters=none", "--keep_checkpoints=1",
         "--checkpoint_frames=1", "--log_frames=1"]),
    (0, [*SMALL, "--meta_parameters=lambda", "--gamma=1", "--reference_gamma=0",
         "--reference_lambda=0", "--meta_batch_size=4", "--eta_embedding_size=0"]),
    (0, [*SMALL, "--seed=2147483647", "--reward_clip=0", "--max_gradient_norm=0",
         "--entropy_cost=0", "--baseline_cost=0", "--checkpoint_minutes=0"]),
    (0, [*SMALL, "--envs_per_actor=64", "--num_actors=3", "--deterministic"]),
    (0, [*SMALL, "--core=lstm", "--core_size=1", "--last_action_and_reward",
         "--eta_embedding_input=values", "--meta_network_eta=current"]),
    (0, [*SMALL, "--rmsprop_decay=0", "--rmsprop_epsilon=1e-30", "--rho_clip=1e-30",
         "--c_clip=1e30", "--pg_rho_clip=1e30", "--learning_rate=1e-30"]),
    (0, [*SMALL, "--stall_timeout=1e9", "--max_actor_restarts=0", "--max_bad_updates=1",
         "--learner_device=cpu:0", "--env_threads=256"]),
    # What does not.
    (1, [*SMALL, "--learning_rate=1e30", "--max_gradient_norm=0", "--max_bad_updates=3",
         "--total_frames=100000", "--reward_clip=0", "--rmsprop_epsilon=1e-30"]),
    (2, [*SMALL, "--learner_device=gpu:99"]),
    (2, [*SMALL, "--network=shallow"]),
    (2, [*SMALL, "--batch_size=4294967296"]),
    (2, [*SMALL, "--mlp_sizes=65536,65536,65536,65536"]),
    (2, [*SMALL, "--core=lstm", "--core_size=8192", "--mlp_sizes=65536"]),
    (2, [*SMALL, "--batch_size=65536", "--unroll_length=10000", "--total_frames=1000000000"]),
    (2, [*SMALL, "--seed=-1"]),
    (2, [*SMALL, "--envs_per_actor=3"]),
    (2, [*SMALL, "--total_frames=1"]),
    (2, [*SMALL, "--meta_parameters=none", "--gamma=1.0000001"]),
    (2, [*SMALL, "--deterministic=perhaps"]),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("code", "flags"), _PROCESSES)
def test_flags_of_real_processes_give_the_exit_code(tmp_path, code, flags):
    result = subprocess.run(
        [sys.executable, "-m", "meta_impala.train", f"--logdir={tmp_path}", *flags],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    if code:
        assert result.stderr.splitlines()[-1].startswith("error: ")
    if code == 2:
        assert result.stderr.count("\n") == 1
    else:
        status = json.loads((tmp_path / "status.json").read_text("utf-8"))
        assert status["state"] == ("failed" if code else "finished")
