"""Command: every mistake in the settings is one line that names flag, value and what is allowed."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import pytest
from support.demonstration import OLDER_PONG

from meta_impala import config as config_lib
from meta_impala.config import (
    Config,
    check_frames,
    from_json,
    merge_for_resume,
    presets,
    resolve,
    resolve_network,
    to_json,
)
from meta_impala.config.eta_settings import EtaSettings
from meta_impala.config.hyper_parameters import TABLE
from meta_impala.config.loss_settings import LossSettings
from meta_impala.config.meta_loss_settings import MetaLossSettings
from meta_impala.errors import UserError
from meta_impala.storage.trained_run import read_agent_file
from meta_impala.system.processors import processors

ROOT = pathlib.Path(__file__).parents[2]


def _refusal(**settings) -> str:
    with pytest.raises(UserError) as caught:
        resolve(Config(**settings))
    message = str(caught.value)
    assert "\n" not in message
    return message


TWO_LEARNERS = {"learner_addresses": "10.0.0.1:2222,[::1]:2222"}
COSTS = ("policy_cost", "baseline_cost", "entropy_cost")
OF_THE_RULE = ("learning_rate_factor", "rmsprop_decay", "max_gradient_norm")
RETURNS = ("vtrace_alpha", "rho_clip", "c_clip")  # besides γ and λ
BOOTSTRAPPED = {"meta_objective": "bootstrapped"}
FED_COST = {"meta_parameters": "gamma,entropy_cost", "embedded_meta_parameters": "entropy_cost"}


def test_defaults_are_those_of_the_papers():
    config = resolve(Config())
    assert (config.unroll_length, config.batch_size, config.meta_batch_size) == (20, 32, 8)
    assert (config.learning_rate, config.learning_rate_schedule) == (6e-4, "linear")
    assert (config.rmsprop_decay, config.rmsprop_epsilon) == (0.99, 0.01)
    assert (config.baseline_cost, config.entropy_cost, config.max_gradient_norm) == (0.5, 0.01, 40)
    assert (config.reference_gamma, config.reference_lambda) == (0.995, 1.0)
    assert config.total_frames == 200_000_000


@pytest.mark.parametrize(
    ("learned", "start", "width"),
    [("none", 1.0, 0), ("gamma", 1.0, 16), ("lambda", 0.99, 16), ("gamma,lambda", 0.99, 16)],
)
def test_lambda_and_embedding_follow_from_what_is_learned(learned, start, width):
    config = resolve(Config(meta_parameters=learned))
    assert config.lambda_ == start
    assert config.eta_embedding_size == width
    assert config.gamma == 0.99


@pytest.mark.parametrize(
    ("settings", "flag", "allowed"),
    [
        ({"gamma": float("nan")}, "--gamma=nan", "[0.0, 1.0]"),
        ({"gamma": 1.5}, "--gamma=1.5", "[0.0, 1.0]"),
        ({"reference_lambda": -0.1}, "--reference_lambda=-0.1", "[0.0, 1.0]"),
        ({"gamma": 1.0}, "--gamma=1.0", "open range (0, 1)"),
        ({"gamma": 0.0}, "--gamma=0.0", "open range (0, 1)"),
        ({"lambda_": 1.0}, "--lambda=1.0", "open range (0, 1)"),
        ({"unroll_length": 0}, "--unroll_length=0", "[1, 10000]"),
        ({"learning_rate": 0.0}, "--learning_rate=0.0", "above 0.0"),
        ({"learning_rate": float("inf")}, "--learning_rate=inf", "finite"),
        ({"meta_batch_size": 0}, "--meta_batch_size=0", "[1, 32]"),
        ({"meta_batch_size": 33}, "--meta_batch_size=33", "[1, 32]"),
        ({"envs_per_actor": 12}, "--envs_per_actor=12", "divide --batch_size=32"),
        ({"network": "depe"}, "--network=depe", "did you mean deep?"),
        ({"protocol": "machdo"}, "--protocol=machdo", "did you mean machado?"),
        ({"meta_parameters": "gamma,lamda"}, "--meta_parameters=gamma,lamda", "mean lambda?"),
        ({"meta_parameters": "gamma,none"}, "--meta_parameters=gamma,none", "none is no meta"),
        ({"meta_parameters": "learning_rate"}, "learning_rate", "mean learning_rate_factor?"),
        ({"meta_parameters": "entropy_cost", "entropy_cost": 0.0}, "entropy_cost", "is empty"),
        ({"meta_parameter_ranges": "gamma:0,1"}, "--meta_parameter_ranges=gamma:0,1", "gamma_min"),
        ({"meta_parameter_ranges": "rho_clip:0,1"}, "rho_clip:0,1", "rho_clip is not learned"),
        (
            {"meta_parameters": "rho_clip", "meta_parameter_ranges": "rho_clip:1"},
            "rho_clip:1",
            "NAME:LOW,HIGH",
        ),
        (
            {"meta_parameters": "rho_clip", "meta_parameter_starts": "rho_clip:9"},
            "rho_clip:9",
            "open range (0, 2)",
        ),
        (
            {"meta_parameters": "rmsprop_decay", "inner_optimizer": "sgd"},
            "rmsprop_decay",
            "needs --inner_optimizer=rmsprop",
        ),
        (
            {"meta_parameters": "gamma,max_gradient_norm", "eta_schedule": "random"},
            "--meta_parameters=gamma,max_gradient_norm: max_gradient_norm acts on the update",
            "unrolls of one batch cannot differ in it",
        ),
        (
            {"meta_parameters": "learning_rate_factor", "eta_schedule": "mixture"},
            "learning_rate_factor acts on the update",
            "must not be named with --eta_schedule=mixture",
        ),
        (
            {
                "meta_parameters": "c_clip",
                "meta_parameter_starts": "rho_clip:1",
                "eta_schedule": "fixed",
            },
            "--meta_parameter_starts=rho_clip:1",
            "must be among --meta_parameters=c_clip",
        ),
        (
            {
                "meta_parameters": "rho_clip",
                "meta_parameter_ranges": "rho_clip:2,3",
                "eta_schedule": "fixed",
            },
            "--meta_parameter_ranges=rho_clip:2,3",
            "[2, 3], must contain its constant, 1, with --eta_schedule=fixed",
        ),
        (
            {"meta_parameters": "rmsprop_decay", "inner_optimizer": "sgd", "eta_schedule": "fixed"},
            "rmsprop_decay",
            "needs --inner_optimizer=rmsprop",
        ),
        ({"embedded_meta_parameters": "rho_clip"}, "rho_clip", "is not learned"),
        ({"meta_parameters": "gamma,gamma"}, "--meta_parameters=gamma,gamma", "have gamma once"),
        ({"meta_parameter_scope": "gamma, gamma"}, "--meta_parameter_scope=gamma, gamma", "once"),
        (
            {"meta_parameters": "rho_clip", "meta_parameter_starts": "rho_clip:1;rho_clip:1.5"},
            "--meta_parameter_starts=rho_clip:1;rho_clip:1.5",
            "must have rho_clip once",
        ),
        ({"reference_tracking": ""}, "--reference_tracking=: an empty name", "must be none, or"),
        ({"reference_tracking": "gamma,"}, "--reference_tracking=gamma,: an empty", "gamma, la"),
        ({"reference_tracking": "gama"}, "--reference_tracking=gama", "did you mean gamma?"),
        ({"reference_tracking": "none,gamma"}, "=none,gamma: none is no", "must be none, or among"),
        ({"reference_tracking": "gamma,gamma"}, "=gamma,gamma", "must have gamma once"),
        ({"reference_tracking": "all"}, "=all: all is no", "learning_rate_factor"),
        *(
            (
                {"meta_parameters": f"gamma,{name}", "reference_tracking": f"gamma,{name}"},
                f"--reference_tracking=gamma,{name}: J' does not read {name} of η'",
                "must be among gamma, lambda, vtrace_alpha, rho_clip, c_clip, what the network is",
            )
            for name in (*COSTS, *OF_THE_RULE)
        ),
        (
            FED_COST | {"meta_network_eta": "current", "reference_tracking": "entropy_cost"},
            "--reference_tracking=entropy_cost: J' does not read entropy_cost",
            "the network is fed of η'",
        ),
        (
            FED_COST | {"eta_embedding_size": 0, "reference_tracking": "entropy_cost"},
            "--reference_tracking=entropy_cost: J' does not read entropy_cost",
            "the network is fed of η'",
        ),
        (
            {
                "meta_objective": "bootstrapped",
                "meta_parameter_references": "entropy_cost:0.1",
                "reference_tracking": "entropy_cost",
            },
            "--reference_tracking=entropy_cost: entropy_cost has a fixed value",
            "--meta_parameter_references=entropy_cost:0.1",
        ),
        *(
            (
                {
                    "meta_objective": "bootstrapped",
                    "meta_parameter_references": f"{name}:{value}",
                },
                f"--meta_parameter_references={name}:{value}: {name} must",
                allowed,
            )
            for name, value, allowed in (
                ("vtrace_alpha", 7, "lie in [0, 1]"),
                ("rho_clip", -1, "lie in [0, ∞)"),
                ("rmsprop_decay", 1.5, "lie in [0, 1]"),
                ("learning_rate_factor", 0, "be above 0 with --bootstrap_steps=1"),
                ("learning_rate_factor", -0.5, "lie in [0, ∞)"),
            )
        ),
        (
            {
                "meta_objective": "bootstrapped",
                "inner_optimizer": "adam",
                "meta_parameter_references": "rmsprop_decay:0.9",
            },
            "--meta_parameter_references=rmsprop_decay:0.9: rmsprop_decay needs",
            "--inner_optimizer=rmsprop",
        ),
        *(
            (
                settings | {"meta_parameter_references": f"{name}:0.05"},
                f"--meta_parameter_references={name}:0.05: J' does not read {name}",
                "must be among gamma, lambda, vtrace_alpha, rho_clip, c_clip, what the network is",
            )
            for name, settings in (
                ("entropy_cost", {}),
                ("rmsprop_decay", {"meta_parameters": "rmsprop_decay"}),
                ("entropy_cost", FED_COST | {"eta_embedding_size": 0}),
            )
        ),
        (
            FED_COST | {"meta_parameter_references": "entropy_cost:0.05"},
            "--meta_parameter_references=entropy_cost:0.05: entropy_cost is 0.05 in η'",
            "must lie in [0, 0.02]",
        ),
        (
            FED_COST
            | {
                "meta_parameter_ranges": "entropy_cost:0.02,0.04",
                "meta_parameter_starts": "entropy_cost:0.03",
            },
            "--meta_parameter_references=: entropy_cost is 0.01 in η'",
            "must lie in [0.02, 0.04]",
        ),
        *(
            (
                FED_COST | BOOTSTRAPPED | settings,
                f"{flag}: entropy_cost is {value} in η'",
                allowed,
            )
            for network_eta in ("reference", "current")
            for settings, flag, value, allowed in (
                (
                    {
                        "meta_network_eta": network_eta,
                        "meta_parameter_references": "entropy_cost:0.05",
                    },
                    "--meta_parameter_references=entropy_cost:0.05",
                    "0.05",
                    "must lie in [0, 0.02]",
                ),
                (
                    {
                        "meta_network_eta": network_eta,
                        "meta_parameter_ranges": "entropy_cost:0.02,0.04",
                        "meta_parameter_starts": "entropy_cost:0.03",
                    },
                    "--meta_parameter_references=",
                    "0.01",
                    "must lie in [0.02, 0.04]",
                ),
            )
        ),
        (
            {
                "meta_parameters": "vtrace_alpha",
                "meta_parameter_ranges": "vtrace_alpha:-1,0.5",
            },
            "--meta_parameter_ranges=vtrace_alpha:-1,0.5",
            "must lie in [0, 1]",
        ),
        (
            {
                "meta_objective": "bootstrapped",
                "inner_optimizer": "sgd",
                "reference_tracking": "rmsprop_decay",
            },
            "--reference_tracking=rmsprop_decay: rmsprop_decay needs",
            "--inner_optimizer=rmsprop",
        ),
        ({"inner_steps": 2, "meta_data": "swap"}, "--meta_data=swap", "--inner_steps=2"),
        ({"inner_steps": 2, "meta_data": "held_out"}, "--meta_data=held_out", "--inner_steps=2"),
        ({"inner_steps": 2, "trace_decay": 0.5}, "accumulative_trace", "--inner_steps=2"),
        ({"inner_steps": 2, "meta_parameter_scope": "state"}, "=state", "--inner_steps=2"),
        (
            {"meta_parameters": "entropy_cost,rho_clip", "meta_parameter_scope": "state"},
            "--meta_parameter_scope=state: is that of gamma and lambda",
            "must be global, or some of these names",
        ),
        (
            {"meta_parameters": "gamma,rmsprop_decay", "meta_parameter_scope": "rmsprop_decay"},
            "--meta_parameter_scope=rmsprop_decay: rmsprop_decay acts on the update as a whole",
            "gamma, lambda, policy_cost",
        ),
        (
            {"meta_parameter_scope": "entropy_cost"},
            "--meta_parameter_scope=entropy_cost: entropy_cost is not learned",
            "must be among --meta_parameters=gamma,lambda",
        ),
        ({"meta_parameter_scope": "states"}, "=states: states is no", "did you mean state?"),
        ({"meta_parameter_scope": "none"}, "=none: none is no", "must be global, state, or among"),
        (
            {"meta_parameter_scope": "gamma", "inner_steps": 2},
            "--meta_parameter_scope=gamma",
            "must be global with --inner_steps=2",
        ),
        ({"mlp_sizes": "64,x"}, "--mlp_sizes=64,x", "comma-separated"),
        ({"learner_device": "tpu"}, "--learner_device=tpu", "auto, cpu, gpu"),
        ({"num_actors": 0}, "--num_actors=0", "[1, 65536]"),
        ({"num_actors": 1025}, "--num_actors=1025", "at most 1024 with --actors=threads"),
        ({"actors": "rey"}, "--actors=rey", "did you mean ray?"),
        ({"ray_address": "auto"}, "--ray_address=auto", "or --actors=ray"),
        ({"actors": "ray", "deterministic": True}, "--deterministic=True", "with --actors=ray"),
        ({"actors": "ray", "ray_address": "ray://h:1"}, "--ray_address=ray://h:1", "HOST:PORT"),
        ({"actors": "ray", "ray_address": "10.0.0.1"}, "--ray_address=10.0.0.1", "HOST:PORT"),
        ({"actors": "ray", "ray_address": "h:65536"}, "--ray_address=h:65536", "HOST:PORT"),
        ({"actors": "ray", "ray_address": "h:0"}, "--ray_address=h:0", "HOST:PORT"),
        ({"actors": "ray", "unrolls_in_flight": 0}, "--unrolls_in_flight=0", "[1, 64]"),
        ({"learner_addresses": "a:1,b"}, "--learner_addresses=a:1,b", "host:port"),
        ({"learner_addresses": "a:1,b:65536"}, "--learner_addresses=", "host:port"),
        ({"learner_addresses": "a:1,a:1"}, "--learner_addresses=a:1,a:1", "its own address"),
        ({"learner_index": 1}, "--learner_index=1", "below the number of --learner_addresses, 1"),
        (TWO_LEARNERS | {"learner_index": 2}, "--learner_index=2", "--learner_addresses, 2"),
        (TWO_LEARNERS | {"batch_size": 33}, "--batch_size=33", "multiple of the number of"),
        (TWO_LEARNERS | {"meta_batch_size": 7}, "--meta_batch_size=7", "multiple of the number"),
        (TWO_LEARNERS | {"envs_per_actor": 12}, "--envs_per_actor=12", "the number of learners"),
        (
            TWO_LEARNERS | {"meta_gradient_mode": "nested_tapes"},
            "--meta_gradient_mode=nested_tapes",
            "must be reverse_over_forward",
        ),
        (
            TWO_LEARNERS | {"trace_decay": 0.5},
            "--meta_gradient_mode=accumulative_trace",
            "without --trace_decay",
        ),
        (
            TWO_LEARNERS | {"meta_advantage_normalization": "ema"},
            "--meta_advantage_normalization",
            "must be none",
        ),
        (TWO_LEARNERS | {"deterministic": True}, "--deterministic=True", "must be false"),
        ({"sample_reuse": 0}, "--sample_reuse=0", "[1, 64]"),
        ({"sample_reuse": 2, "meta_data": "swap"}, "--sample_reuse=2", "must be 1 with"),
        ({"sample_reuse": 2, "inner_steps": 2}, "--sample_reuse=2", "must be 1 with"),
        (
            {"sample_reuse": 2, "meta_objective": "bootstrapped"},
            "--sample_reuse=2",
            "must be 1 with",
        ),
        ({"seed": 2**31}, f"--seed={2**31}", str(2**31 - 1)),
        ({"total_frames": True}, "--total_frames=True", "int"),
        ({"batch_size": "8"}, "--batch_size='8'", "int"),
    ],
)
def test_refusals_name_flag_value_and_what_is_allowed(settings, flag, allowed):
    message = _refusal(**settings)
    assert flag in message
    assert allowed in message


@pytest.mark.parametrize("address", ["", "local", "auto", "10.0.0.1:6379", "[::1]:6379", "head:1"])
def test_addresses_of_a_ray_cluster(address):
    config = resolve(Config(actors="ray", ray_address=address, num_actors=10_000))
    assert config.ray_address == address


@pytest.mark.parametrize(
    "text",
    ["5", "[1]", '"a"', "null", "{", "{size: 5}", '{"size": NaN}', '{"size": Infinity}', "size=5",
     '{"a": 1} {"b": 2}', '{"a b": 1}', '{"": 1}', '{"render_mode": "human"}', '{"id": "x"}',
     "[" * 2000],
)  # fmt: skip
def test_arguments_of_the_environment_are_a_json_object(text):
    message = _refusal(environment="Catch", environment_kwargs=text)
    assert message.startswith("--environment_kwargs=") and len(message) < 400


def test_equal_arguments_of_the_environment_have_equal_texts():
    texts = ('{"b": [1, "é"], "a": {"c": null}}', ' {"a":{"c":null},\t"b":[1,"\\u00e9"]} ')
    configs = [resolve(Config(environment_kwargs=text.replace("\t", ""))) for text in texts]
    assert configs[0] == configs[1] == resolve(configs[0])
    assert configs[0].environment_arguments == {"a": {"c": None}, "b": [1, "é"]}
    for none in ("", "{}", " {} "):
        assert resolve(Config(environment_kwargs=none)).environment_kwargs == ""


def test_a_config_older_than_the_arguments_of_the_environment_has_none():
    values = json.loads(config_lib.to_json(resolve(Config())))
    del values["environment_kwargs"]
    assert config_lib.from_json(json.dumps(values), "config.json").environment_arguments == {}


def test_a_run_never_changes_the_arguments_of_its_environment():
    saved = resolve(Config(environment_kwargs='{"size": 5}'))
    same = {"environment_kwargs": '{"size":5}'}
    assert config_lib.merge_for_resume(saved, same, override=False) == saved
    with pytest.raises(UserError, match="environment_kwargs"):
        config_lib.merge_for_resume(saved, {"environment_kwargs": ""}, override=True)


def test_fixed_values_may_be_exactly_zero_or_one():
    config = resolve(Config(meta_parameters="lambda", gamma=1.0, meta_batch_size=8))
    assert config.gamma == 1.0
    assert resolve(Config(meta_parameters="none", gamma=1.0, lambda_=0.0)).lambda_ == 0.0


def test_meta_batch_size_is_ignored_when_nothing_is_learned():
    assert resolve(Config(meta_parameters="none", meta_batch_size=0)).meta_batch_size == 0


def test_a_run_is_at_least_one_batch():
    with pytest.raises(UserError, match="at least one batch, 2560 frames"):
        check_frames(Config(total_frames=2559), action_repeat=4)
    check_frames(Config(total_frames=2560), action_repeat=4)


@pytest.mark.parametrize(
    ("network", "shapes"),
    [
        ("shallow", [(4, 84, 84), (84, 84, 3), (84, 84), (4, 84, 84, 3), (4, 3, 84, 84)]),
        # MinAtar's games; the smallest and the largest sides; more planes than sides; stacks.
        ("minatar", [(10, 10, n) for n in (4, 6, 7, 10)]),
        ("minatar", [(5, 5, 2), (20, 20, 3), (5, 20, 3), (8, 8, 20), (20, 8, 8), (4, 10, 10, 6)]),
        # Catch and Patience; one plane; sides that are too small or too large; no images.
        ("mlp", [(10, 5), (9, 3), (10, 10, 1), (1, 10, 10), (4, 4, 3), (21, 20, 3), (5, 21, 3)]),
        ("mlp", [(), (4,), (2, 2, 2, 2, 2)]),
    ],
)
def test_auto_chooses_by_the_sides_and_planes_of_an_observation(network, shapes):
    assert [resolve_network(Config(), shape).network for shape in shapes] == [network] * len(shapes)


def test_the_torso_of_minatar_needs_three_by_three_pixels():
    assert resolve_network(Config(network="minatar"), (3, 3, 1)).network == "minatar"
    with pytest.raises(UserError, match="3×3"):
        resolve_network(Config(network="minatar"), (2, 9, 1))


@pytest.mark.parametrize("network", ["shallow", "nature", "deep"])
@pytest.mark.parametrize("shape", [(4,), (7, 7), (3, 7, 7)])
def test_image_torsos_refuse_other_shapes_and_small_images(network, shape):
    with pytest.raises(UserError, match=f"--network={network}"):
        resolve_network(Config(network=network), shape)


def test_json_round_trip_uses_flag_names():
    config = resolve(Config(seed=5))
    text = config_lib.to_json(config)
    assert json.loads(text)["lambda"] == 0.99
    assert config_lib.from_json(text, "config.json") == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("gamma"), "missing keys: gamma"),
        (lambda values: values.update(gama=1), "unknown keys: gama (did you mean gamma?)"),
        (lambda values: values.update(gamma="x"), "--gamma='x'"),
        (lambda values: values.update(gamma=None), "--gamma=None"),
    ],
)
def test_a_damaged_config_names_file_and_key(change, message):
    values = json.loads(config_lib.to_json(resolve(Config())))
    change(values)
    with pytest.raises(UserError) as caught:
        config_lib.from_json(json.dumps(values), "somewhere/config.json")
    assert message in str(caught.value)
    assert "somewhere/config.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000])
def test_json_other_than_an_object_is_refused(text):
    with pytest.raises(UserError, match="config.json"):
        config_lib.from_json(text, "config.json")


# Of η', what a new run is refused for.
OLD_REFERENCES = (
    {"meta_parameter_references": "entropy_cost:0.5"},
    {"meta_parameter_references": "vtrace_alpha:7"},
    {"meta_parameter_references": "rmsprop_decay:0.9", "inner_optimizer": "adam"} | BOOTSTRAPPED,
    {"meta_parameter_references": "learning_rate_factor:0"} | BOOTSTRAPPED,
    {"meta_parameter_references": "max_gradient_norm:1"},
    FED_COST | {"meta_parameter_references": "entropy_cost:0.05"},
    {"meta_parameters": "gamma,entropy_cost", "reference_tracking": "entropy_cost"},
)


@pytest.mark.parametrize("settings", OLD_REFERENCES)
def test_what_a_run_has_in_the_reference_is_refused_where_it_starts_only(settings):
    _refusal(**settings)
    stored = resolve(Config(**settings), is_stored=True)
    text = to_json(stored)
    read = from_json(text, "config.json")
    assert to_json(read) == text
    # It is continued as it is, by the command and by a program, also in parts.
    assert merge_for_resume(read, {"num_actors": 3}, override=False).num_actors == 3
    assert merge_for_resume(read, json.loads(text), override=False) == read
    assert merge_for_resume(read, {"micro_batches": 4}, override=False).micro_batches == 4
    # A change is typed, and checked as that of a new run.
    with pytest.raises(UserError, match="--meta_parameter_references=|--reference_tracking="):
        merge_for_resume(read, {"learning_rate": 0.1}, override=True)
    mended = {"meta_parameter_references": "", "reference_tracking": "none"}
    assert merge_for_resume(read, mended, override=True).tracked == ()
    with pytest.raises(UserError, match="J' does not read baseline_cost|must lie in|must have"):
        wrong = {"meta_parameter_references": "baseline_cost:-1"}
        merge_for_resume(read, wrong | {"reference_tracking": "none"}, override=True)


def test_in_the_reference_a_norm_of_0_is_no_clip():
    settings = BOOTSTRAPPED | {"meta_parameter_references": "max_gradient_norm:0"}
    resolve(Config(**settings))
    inherited = {"max_gradient_norm": 0.0, "meta_parameter_references": ""}
    resolve(Config(**settings | inherited))


def test_in_the_reference_a_step_of_0_leaves_a_longer_target():
    settings = BOOTSTRAPPED | {"meta_parameter_references": "learning_rate_factor:0"}
    resolve(Config(**settings, bootstrap_steps=2))
    resolve(Config(**settings, meta_parameters="none"))


def test_resume_may_change_settings_that_do_not_affect_the_result():
    saved = resolve(Config())
    changes = {"total_frames": 10**9, "num_actors": 4, "log_frames": 7, "queue_capacity": 9}
    merged = merge_for_resume(saved, changes, override=False)
    assert merged == dataclasses.replace(saved, **changes)


def test_resume_needs_override_for_hyper_parameters():
    saved = resolve(Config())
    with pytest.raises(UserError, match=r"--learning_rate=0.1 \(the run has 0.0006\).*--override"):
        merge_for_resume(saved, {"learning_rate": 0.1}, override=False)
    assert merge_for_resume(saved, {"learning_rate": 0.1}, override=True).learning_rate == 0.1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("environment", "ALE/Breakout-v5"),
        ("protocol", "machado"),
        ("network", "deep"),
        ("core", "lstm"),
        ("eta_embedding_size", 8),
        ("meta_parameters", "none"),
    ],
)
def test_resume_never_changes_settings_of_the_weights(name, value):
    saved = dataclasses.replace(resolve(Config()), network="shallow")
    with pytest.raises(UserError, match=f"--{name}={value}.*never changes"):
        merge_for_resume(saved, {name: value}, override=True)


def test_resume_with_network_auto_keeps_the_network_chosen_then():
    saved = dataclasses.replace(resolve(Config()), network="shallow")
    assert merge_for_resume(saved, {"network": "auto"}, override=False) == saved


def test_several_learners_share_the_batches():
    config = resolve(Config(**TWO_LEARNERS, learner_index=1))
    assert config.num_learners == 2
    assert config.meta_gradient_mode == "reverse_over_forward"
    share = config.share
    assert (share.batch_size, share.meta_batch_size, share.block_size) == (16, 4, 16)
    assert resolve(share) == share == share.share
    assert resolve(Config()).share == resolve(Config())
    # One address is one learner, and so is a run that goes on without the others.
    assert resolve(Config(learner_addresses="a:1")).num_learners == 1
    for given in ({"learner_addresses": "", "learner_index": 0}, {"learner_addresses": ""}, {}):
        alone = merge_for_resume(config, given, override=False)
        assert (alone.num_learners, alone.learner_index) == (1, 0)
        # And one that goes on with them again.
        again = merge_for_resume(alone, TWO_LEARNERS | {"learner_index": 1}, override=False)
        assert again == config


PLACES = {
    "ray_address": "10.0.0.1:6379",
    "learner_addresses": "10.0.0.1:2222,[::1]:2222",
    "learner_index": 1,
    "wandb_project": "somebody",
}


def test_addresses_are_marked_as_places_to_connect_to():
    marked = [n for n, f in config_lib.FIELDS.items() if f.metadata["from_command_line_only"]]
    assert marked == list(PLACES)
    named = {name for name in config_lib.FIELDS if "address" in name or "wandb" in name}
    assert named <= set(marked)


@pytest.mark.parametrize("name", PLACES)
def test_places_to_connect_to_are_recorded_and_never_taken_from_a_file(name):
    config = resolve(Config(actors="ray", **PLACES))
    text = to_json(config)
    assert json.loads(text)[name] == PLACES[name]
    default = config_lib.FIELDS[name].default
    read = from_json(text, "config.json")
    assert getattr(read, name) == default
    assert getattr(merge_for_resume(config, {}, override=True), name) == default
    assert getattr(config_lib.join_learners(config, {}), name) == default
    assert config_lib.saved_addresses(text, "config.json")[name] == PLACES[name]
    assert not config_lib.saved_addresses(to_json(read), "config.json")
    # Typed at this start, it acts.
    given = {name: PLACES[name]} | ({} if "learner" not in name else TWO_LEARNERS)
    assert getattr(merge_for_resume(read, given, override=False), name) == PLACES[name]


def test_a_further_learner_checks_what_it_needs_to_join():
    config_lib.check_addresses(Config(**TWO_LEARNERS, learner_index=1))
    for wrong in ({"learner_index": 2}, {"stall_timeout": 0.0}, {"learner_index": True}):
        (name,) = wrong
        with pytest.raises(UserError, match=f"--{name}="):
            config_lib.check_addresses(Config(**TWO_LEARNERS, **wrong))


def test_a_further_learner_takes_the_settings_of_the_first():
    first = resolve(Config(**TWO_LEARNERS, batch_size=64, seed=5))
    join = config_lib.join_learners
    given = {"learner_index": 1, "env_threads": 7, "batch_size": 64, "lambda": 0.99}
    given |= TWO_LEARNERS
    assert join(first, given) == dataclasses.replace(first, learner_index=1, env_threads=7)
    with pytest.raises(UserError, match=r"--learner_index=1.*--seed=6 \(it has 5\)") as caught:
        join(first, TWO_LEARNERS | {"learner_index": 1, "seed": 6, "batch_size": 64})
    assert "batch_size" not in str(caught.value)


def test_importing_the_package_and_the_config_does_not_import_tensorflow():
    code = (
        "import sys, meta_impala, meta_impala.config, meta_impala.train, meta_impala.evaluate;"
        "sys.exit('tensorflow' in sys.modules or 'gymnasium' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("batch_size", "expected"), [(32, 32), (8, 32), (64, 32), (48, 24), (12, 36), (37, 37), (1, 32)]
)
def test_auto_environments_fit_the_batch(batch_size, expected):
    config = resolve(Config(batch_size=batch_size, meta_batch_size=1, num_actors=2))
    assert config.envs_per_actor == expected


@pytest.mark.parametrize(("num_actors", "expected"), [(4, 32), (8, 16), (16, 8), (1000, 8)])
def test_many_actors_have_fewer_environments_each(num_actors, expected):
    assert resolve(Config(num_actors=num_actors)).envs_per_actor == expected
    assert resolve(Config(num_actors=num_actors, envs_per_actor=32)).envs_per_actor == 32
    on_a_cluster = Config(num_actors=num_actors, actors="ray")
    assert resolve(on_a_cluster).envs_per_actor == 32


def test_a_quota_of_processor_time_counts_as_so_many_processors(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr("meta_impala.system.processors._QUOTA", quota)
    assert processors() == 64
    for text, expected in [("max 100000\n", 64), ("200000 100000\n", 2), ("150000 100000", 2),
                           ("20000 100000", 1), ("9900000 100000", 64), ("x", 64)]:  # fmt: skip
        quota.write_text(text)
        assert processors() == expected
    quota.write_text("max 100000\n")
    assert resolve(Config()).num_actors == 8
    assert resolve(Config(actors="ray")).num_actors == 64


def test_a_resumed_run_may_use_more_micro_batches():
    saved = resolve(Config())
    assert saved.meta_gradient_mode == "nested_tapes"
    wanted = merge_for_resume(saved, {"micro_batches": 4}, override=False)
    assert (wanted.micro_batches, wanted.meta_gradient_mode) == (4, "reverse_over_forward")
    back = merge_for_resume(wanted, {"micro_batches": 1}, override=False)
    assert back == saved
    chosen = resolve(Config(meta_gradient_mode="reverse_over_forward"))
    assert merge_for_resume(chosen, {"num_actors": 3}, override=False).meta_gradient_mode == (
        "reverse_over_forward"
    )
    with pytest.raises(UserError, match="--meta_gradient_mode"):
        merge_for_resume(saved, {"meta_gradient_mode": "reverse_over_forward"}, override=False)


def test_auto_actors_are_one_for_each_processor(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)))
    assert resolve(Config()).num_actors == 7
    assert resolve(Config(num_actors=3)).num_actors == 3
    saved = from_json(to_json(resolve(Config(num_actors=3))), "config.json")
    assert merge_for_resume(saved, {}, override=False).num_actors == 3
    assert merge_for_resume(saved, {"num_actors": None}, override=False).num_actors == 7


def test_a_run_older_than_a_setting_has_the_value_it_had_then():
    values = json.loads(to_json(resolve(Config())))
    young = config_lib.values_if_missing()
    assert {"actors", "precision", "policy_return", "eta_embedding_place"} <= set(young)
    for name in young:
        del values[name]
    old = dataclasses.replace(resolve(Config()), eta_embedding_place="heads")
    assert from_json(json.dumps(values), "config.json") == old


def test_new_runs_have_e_eta_at_the_last_hidden_layer_and_old_ones_at_the_heads():
    assert resolve(Config()).eta_embedding_place == "last_hidden"
    path = OLDER_PONG / "config.json"
    assert from_json(path.read_text("utf-8"), path).eta_embedding_place == "heads"
    assert read_agent_file(ROOT / "testdata/pong_agent.npz").config.eta_embedding_place == "heads"
    old = dataclasses.replace(resolve(Config()), eta_embedding_place="heads")
    with pytest.raises(UserError, match="--eta_embedding_place=last_hidden .*never changes"):
        merge_for_resume(old, {"eta_embedding_place": "last_hidden"}, override=True)
    assert merge_for_resume(old, {}, override=False) == old


@pytest.mark.parametrize(
    ("settings", "matters"),
    [
        ({}, True),
        ({"meta_parameters": "none"}, False),
        ({"meta_parameters": "none", "last_action_and_reward": True}, True),
        ({"eta_embedding_size": 0}, False),
        ({"core": "lstm"}, False),
    ],
)
def test_the_place_of_e_eta_matters_only_where_eta_is_embedded(settings, matters):
    new = resolve(Config(**settings))
    old = dataclasses.replace(new, eta_embedding_place="heads")
    assert config_lib.differing(old, new) == (["eta_embedding_place"] if matters else [])


# The 44 settings of the first version, in the order of its files; testdata/pong_agent.npz is one.
FIRST = (
    "environment protocol total_frames seed deterministic meta_parameters gamma lambda "
    "reference_gamma reference_lambda meta_batch_size meta_learning_rate eta_embedding_size "
    "eta_embedding_input meta_network_eta meta_gradient_mode unroll_length batch_size "
    "learning_rate learning_rate_schedule rmsprop_decay rmsprop_epsilon max_gradient_norm "
    "baseline_cost entropy_cost reward_clip rho_clip c_clip pg_rho_clip network mlp_sizes "
    "core core_size last_action_and_reward num_actors envs_per_actor env_threads "
    "queue_capacity stall_timeout learner_device checkpoint_minutes checkpoint_frames "
    "keep_checkpoints log_frames"
)


def test_every_setting_that_some_files_lack_says_what_they_mean():
    assert [name for name in config_lib.FIELDS if name not in config_lib.values_if_missing()] == (
        FIRST.split()
    )
    for name, value in config_lib.values_if_missing().items():
        assert config_lib.checked_value(config_lib.FIELDS[name], value) == value


def test_the_order_of_config_json_is_that_of_older_files():
    new = list(json.loads(to_json(resolve(Config()))))
    for path in sorted((ROOT / "testdata").rglob("config.json")):
        old = list(json.loads(path.read_text("utf-8")))
        assert [name for name in new if name in old] == old


def test_a_setting_belongs_to_one_group_and_a_component_takes_its_group():
    owners = [
        name for group in Config.__mro__ for name in group.__dict__.get("__annotations__", {})
    ]
    assert sorted(owners) == sorted(field.name for field in config_lib.FIELDS.values())
    config = resolve(Config(rho_clip=0.5, policy_return="next_target"))
    losses = config.part(LossSettings)
    assert losses == LossSettings(rho_clip=0.5, policy_return="next_target")
    assert [field.name for field in dataclasses.fields(losses)] == [
        "policy_cost", "baseline_cost", "entropy_cost", "rho_clip", "c_clip", "vtrace_alpha",
        "pg_rho_clip", "policy_return",
    ]  # fmt: skip
    assert config.part(EtaSettings).learned == ("gamma", "lambda")
    assert config.part(Config) == config


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"eta_schedule": "replay"}, "--eta_schedule_file=: must be given"),
        ({"eta_schedule_file": "a.csv"}, "--eta_schedule_file=a.csv: needs --eta_schedule=replay"),
        ({"eta_schedule_sha256": "0" * 64}, "needs --eta_schedule=replay; it is learned"),
        (
            {"eta_schedule": "replay", "eta_schedule_file": "a.csv", "eta_schedule_sha256": "0F"},
            "--eta_schedule_sha256=0F: must be 64 hexadecimal digits",
        ),
        (
            {"eta_schedule": "replay", "eta_schedule_file": "a", "meta_parameters": "none"},
            "--eta_schedule=replay: needs --meta_parameters",
        ),
        ({"eta_schedule": "linear", "meta_parameters": "none"}, "needs --meta_parameters"),
        (
            {
                "eta_schedule": "fixed",
                "meta_parameters": "max_gradient_norm",
                "max_gradient_norm": 0.0,
                "meta_parameter_ranges": "max_gradient_norm:0,40",
            },
            "--max_gradient_norm=0: max_gradient_norm must be above 0",
        ),
        (
            {
                "eta_schedule": "linear",
                "meta_parameters": "max_gradient_norm",
                "eta_linear_ends": "max_gradient_norm:40,0",
            },
            "--eta_linear_ends=max_gradient_norm:40,0: max_gradient_norm must be above 0",
        ),
        ({"eta_schedule": "linear", "eta_linear_gamma": "0.9"}, "--eta_linear_gamma=0.9: must be"),
        ({"eta_schedule": "linear", "eta_linear_gamma": "0.9,1.1"}, "numbers START,END in [0, 1]"),
        ({"eta_schedule": "linear", "eta_linear_lambda": "nan,1"}, "--eta_linear_lambda=nan,1: "),
        ({"eta_schedule": "linear", "eta_linear_lambda": ""}, "--eta_linear_lambda=: must be two"),
        ({"eta_schedule": "linear", "meta_parameter_scope": "state"}, "must be learned with"),
        (
            {"eta_schedule": "linear", "meta_parameters": "gamma,rho_clip"},
            "--eta_linear_ends=: must have rho_clip:START,END with --meta_parameters=gamma,rho",
        ),
        (
            {
                "eta_schedule": "linear",
                "meta_parameters": "rho_clip",
                "eta_linear_ends": "rho_clip:0,2.5",
            },
            "--eta_linear_ends=rho_clip:0,2.5: must be two numbers START,END in [0, 2] for rho_",
        ),
        (
            {"eta_schedule": "linear", "eta_linear_ends": "gamma:0,1"},
            "--eta_linear_ends=gamma:0,1: gamma has --eta_linear_gamma for this",
        ),
        (
            {"eta_schedule": "linear", "eta_linear_ends": "rho_clip:0;1"},
            "must be NAME:START,END, separated by semicolons",
        ),
        (
            {"eta_schedule": "random", "meta_parameters": "rho_clip"},
            "--eta_random_ranges=: must have rho_clip:LOW,HIGH with --meta_parameters=rho_clip",
        ),
        (
            {
                "eta_schedule": "random",
                "meta_parameters": "rho_clip",
                "eta_random_ranges": "rho_clip:0,1",
            },
            "--eta_random_ranges=rho_clip:0,1: must be two numbers LOW,HIGH with 0 < LOW < HIGH <",
        ),
        (
            {"eta_schedule": "random", "eta_random_ranges": "rho_clip:0,1"},
            "rho_clip does not vary; must be among --meta_parameters=gamma,lambda",
        ),
        ({"eta_random_ranges": "rho_clip:0,1"}, "needs --eta_schedule=random; it is learned"),
        (
            {"eta_schedule": "mixture", "meta_parameters": "gamma,lambda,rho_clip"},
            "every member must have rho_clip:NUMBER in [0, 2] with --meta_parameters=gamma,lambda,",
        ),
        (
            {"eta_schedule": "mixture", "eta_mixture": "0.9,1,rho_clip:1;0.9,1,rho_clip:1.5"},
            "rho_clip must be 1 (--rho_clip) throughout with --meta_parameters=gamma,lambda",
        ),
        ({"eta_schedule": "mixture", "eta_mixture": "0.9,1,rho:1"}, "or NAME:NUMBER,..."),
        ({"eta_schedule": "mixture", "eta_mixture": "0.9,1,gamma:1"}, "must be pairs γ,λ"),
        ({"eta_schedule": "mixture", "eta_mixture": "0.9,1,0.5"}, "must be pairs γ,λ"),
        ({"eta_schedule": "replayed"}, "did you mean replay?"),
    ],
)
def test_settings_of_eta_schedules_are_checked(settings, expected):
    assert expected in _refusal(**settings)


def test_a_linear_schedule_of_a_parameter_that_is_not_learned_is_ignored():
    resolve(Config(eta_schedule="linear", meta_parameters="gamma", eta_linear_lambda="x"))


def test_the_members_of_a_mixture_by_name():
    config = resolve(Config(
        eta_schedule="mixture", meta_parameters="gamma,rho_clip",
        eta_mixture="0.9,1,rho_clip:0.5; rho_clip:1.5,gamma:0.99",
    ))  # fmt: skip
    assert config.eta_members == (
        {"gamma": 0.9, "lambda": 1.0, "rho_clip": 0.5}, {"gamma": 0.99, "rho_clip": 1.5}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("global", ()),
        ("state", ("gamma",)),  # what it meant before there were names
        ("entropy_cost", ("entropy_cost",)),
        (" entropy_cost,gamma", ("gamma", "entropy_cost")),
    ],
)
def test_what_is_a_function_of_the_state(scope, expected):
    config = resolve(Config(meta_parameters="gamma,entropy_cost", meta_parameter_scope=scope))
    assert config.of_states == expected and config.eta_is_per_state == bool(expected)
    assert from_json(to_json(config), "config.json") == config
    # A control has none, whatever it is the control of.
    assert dataclasses.replace(config, eta_schedule="fixed").of_states == ()


@pytest.mark.parametrize(
    ("tracking", "settings", "expected"),
    [
        # What it could be before it followed the table.
        ("none", {}, ()),
        ("gamma", {}, ("gamma",)),
        ("lambda", {}, ("lambda",)),
        ("gamma,lambda", {}, ("gamma", "lambda")),
        ("gamma", {"meta_parameters": "lambda"}, ("gamma",)),
        ("gamma,lambda", {"meta_parameters": "none"}, ("gamma", "lambda")),
        (" rho_clip , c_clip,gamma,vtrace_alpha", {}, ("gamma", *RETURNS)),
        ("entropy_cost,gamma", FED_COST, ("gamma", "entropy_cost")),
        ("max_gradient_norm,gamma", BOOTSTRAPPED, ("gamma", "max_gradient_norm")),
        (",".join(TABLE), BOOTSTRAPPED | {"inner_steps": 2}, tuple(TABLE)),
        # A control has no J': it keeps the flags of the run that it is the control of.
        ("entropy_cost", {"eta_schedule": "fixed"}, ("entropy_cost",)),
    ],
)
def test_what_follows_the_current_eta(tracking, settings, expected):
    config = resolve(Config(**settings, reference_tracking=tracking))
    assert config.tracked == expected
    assert config.reference_tracking == (",".join(expected) or "none")
    assert from_json(to_json(config), "config.json") == config
    again = {"reference_tracking": ",".join(reversed(expected)) or "none"}
    assert merge_for_resume(config, again, override=False) == config


# Settings that one meta objective reads and the other does not, and values that are no defaults.
UNREAD = {
    "bootstrapped": {
        **{field.name: 0.25 for field in dataclasses.fields(MetaLossSettings)},
        "meta_advantage_decay": 0.5,
    },
    "validation": {"matching_policy_cost": 0.0, "matching_value_cost": 2.0},
}
UNREAD_BY = [(objective, name) for objective, names in UNREAD.items() for name in names]


@pytest.mark.parametrize(("objective", "name"), UNREAD_BY)
def test_a_weight_that_the_meta_objective_does_not_read_is_refused_at_the_start(objective, name):
    (other,) = UNREAD.keys() - {objective}
    given = {name: UNREAD[objective][name]}
    config = resolve(Config(meta_objective=objective, **given), is_stored=True)
    assert from_json(to_json(config), "config.json") == config  # a folder that has it opens
    with pytest.raises(UserError) as caught:
        resolve(config)
    assert str(caught.value).startswith(
        f"--{name}={given[name]:g}: has no effect with --meta_objective={objective}; must be "
    )
    assert str(caught.value).endswith(f"or --meta_objective={other}")
    # And is continued, also with another setting changed.
    assert merge_for_resume(config, {"learning_rate": 0.1}, override=True).learning_rate == 0.1
    with pytest.raises(UserError, match=f"--{name}="):
        merge_for_resume(resolve(Config(meta_objective=objective)), given, override=True)
    for is_read in (
        Config(meta_objective=other, **given),
        Config(meta_objective=objective, meta_parameters="none", **given),
        Config(meta_objective=objective, eta_schedule="fixed", **given),  # a control has no J'
    ):
        resolve(is_read)


@pytest.mark.parametrize("objective", UNREAD)
def test_defaults_are_not_refused_at_the_start(objective):
    resolve(Config(meta_objective=objective))


@pytest.mark.parametrize("name", presets.names())
def test_no_preset_is_refused_at_the_start(name):
    resolve(presets.preset(name))


def test_the_schedule_of_eta_never_changes_in_a_run():
    saved = resolve(Config(eta_schedule="replay", eta_schedule_file="a.csv"))
    for changes in ({"eta_schedule_file": "b.csv"}, {"eta_schedule_sha256": "0" * 64}):
        with pytest.raises(UserError, match="this never changes in a run"):
            merge_for_resume(saved, changes, override=True)
    assert merge_for_resume(saved, {"eta_schedule_file": "a.csv"}, override=False) == saved
