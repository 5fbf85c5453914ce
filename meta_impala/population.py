"""Population based training of plain IMPALA: adapts γ, λ, step size and entropy cost.

    meta-impala population --environment=Pong --logdir=runs/pbt --population_size=8

Ranges (`--population_learning_rate` …) take the place of `--learning_rate`, `--entropy_cost`,
`--gamma` and `--lambda`. The frames of `--total_frames` are those of all members together. The
folder ends as the run of the best member (evaluate it as any other), with `members/` and
`population.csv` beside it. The same command continues it.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
from typing import Any

from absl import flags

from meta_impala import command
from meta_impala import config as config_lib
from meta_impala.config import AgentSettings, Config
from meta_impala.config.flags import define_config_flags, given_config_flags
from meta_impala.config.presets import define_preset_flag
from meta_impala.distributed import cluster as ray_cluster
from meta_impala.environments import UnknownEnvironmentError, registry
from meta_impala.errors import UserError, warn
from meta_impala.experiments.pbt_settings import (
    ADAPTED,
    OF_ALL_MEMBERS,
    Population,
    check_packages,
    define_population_flags,
    population_of,
    refuse_changes,
    refuse_in_members,
    write_record,
)
from meta_impala.storage import made_here
from meta_impala.storage import run_folder as run_folder_lib
from meta_impala.storage.folder_lock import locked
from meta_impala.storage.folder_use import check_for_population
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trust import define_trust_flag, trust_of_flags
from meta_impala.system.interrupt import raise_on_interrupt
from meta_impala.system.user_path import define_path

FLAGS = flags.FLAGS


def define_flags() -> None:
    """The flags of this command."""
    define_config_flags()
    define_preset_flag()
    define_trust_flag()
    define_path("logdir", None, "Folder of the run: made, or continued.")
    define_population_flags()


def _arguments(given: dict[str, Any]) -> list[str]:
    """The flags of a member: those given (also by a preset), without those the population sets."""
    refuse_in_members(given)
    decided = {*ADAPTED, "total_frames", "seed", "ray_address"}
    kept = {name: value for name, value in given.items() if name not in decided} | OF_ALL_MEMBERS
    # What is None was given as auto, the default.
    return [f"--{name}={value}" for name, value in kept.items() if value is not None]


def main() -> int:
    """Runs the command; returns its exit code."""
    if not FLAGS.logdir:
        raise UserError("--logdir: must be given, the folder of the run")
    check_packages()
    given = given_config_flags()
    arguments = _arguments(given)
    settings = given | OF_ALL_MEMBERS | {"ray_address": ""}
    named = {config_lib.FIELDS[name].name: value for name, value in settings.items()}
    config = config_lib.resolve(Config(**named))
    try:
        spec = registry.resolve(config.environment)
    except UnknownEnvironmentError as error:
        raise UserError(f"--environment={config.environment}: {error}") from None
    config_lib.refuse_background(config.part(AgentSettings), spec.game)
    population = population_of(FLAGS, config, spec.action_repeat)
    folder = RunFolder(FLAGS.logdir)
    config = dataclasses.replace(config, environment=spec.id)  # one name for one environment
    with locked(folder):
        check_for_population(folder)
        state = folder.members / "tune"
        is_begun = os.path.lexists(state)
        is_recorded = is_begun and refuse_changes(folder.members, population, config)
        if folder.read_status().get("state") == run_folder_lib.FINISHED:
            command.say(f"{folder.path}: this population is finished")
            return 0
        if is_begun:
            _refuse_foreign_state(state)
        if is_begun and not is_recorded:
            warn(
                f"warning: {folder.path}: is of an older version, which did not record its "
                "settings; the members keep those, whatever is given now"
            )
        return _train(folder, config, population, arguments, records=is_recorded or not is_begun)


def _refuse_foreign_state(state: pathlib.Path) -> None:
    """Tune's state is pickled: to read it is to run it."""
    if not (trust_of_flags().everything or made_here.is_made_here(state.parent)):
        raise UserError(
            f"{state}: continuing a population runs code that these files hold (pickles of Ray "
            "Tune), and it is not known that you made them here; give --trust_modules if you trust "
            "them"
        )


def _train(
    folder: RunFolder,
    config: Config,
    population: Population,
    arguments: list[str],
    *,
    records: bool,
) -> int:
    place = dataclasses.replace(
        config, actors="ray", ray_address=FLAGS["ray_address"].value, num_actors=os.cpu_count() or 1
    )
    with ray_cluster.connected(place):
        ray_cluster.refuse_more_cpus("population_cpus", population.cpus)
        from meta_impala.experiments import pbt as population_lib

        # Tune saves and stops at an interrupt.
        raise_on_interrupt()
        signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        command.say(
            f"{population.size} members train {population.frames_of_each:,} frames each on "
            f"{config.environment} in {folder.members}"
        )
        if records:
            write_record(folder.members, population, config, arguments)
        outcome = population_lib.train(population, arguments, config.seed, folder.members)
    population_lib.publish(outcome, population, config.seed, folder)
    command.say(f"finished; the best of them is {outcome.best.name}, now in {folder.path}")
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main)
