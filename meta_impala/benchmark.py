"""Measures what training costs on this machine, part by part, in one table.

    meta-impala benchmark                       real Pong, shallow network; under 5 minutes
    meta-impala benchmark --quick --json=b.json
    meta-impala benchmark --network=deep --batch_size=16
    meta-impala benchmark --rows=program_meta --vary=num_actors=1,2,4,8
    meta-impala benchmark --rows=learner_plain,learner_nested_tapes --profile

Every flag of the trainer may be given. Ratios are formed from CPU time per agent step, which other
work on the machine disturbs less than wall time. Every row is measured in a process of its own.
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import os
import pathlib
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import psutil
from absl import flags

from meta_impala import command
from meta_impala import config as config_lib
from meta_impala.config import AgentSettings, Config
from meta_impala.config.flags import define_config_flags, given_config_flags
from meta_impala.config.list_flags import define_list
from meta_impala.config.presets import define_preset_flag
from meta_impala.environments import UnknownEnvironmentError, registry
from meta_impala.errors import RunFailed, UserError
from meta_impala.storage.files import write_atomically
from meta_impala.storage.json_files import json_document
from meta_impala.storage.results_folder import check_file
from meta_impala.system.interrupt import raise_on_interrupt
from meta_impala.system.user_path import define_path

if TYPE_CHECKING:
    from meta_impala.benchmarks.throughput import Effort

FLAGS = flags.FLAGS
_ROW_SECONDS = 240.0
_LISTED_OPERATIONS = 10
_QUICK_ENVIRONMENTS = 16
_DEFAULTS = {"environment": "Pong", "network": "shallow", "batch_size": 32, "unroll_length": 20}
_LEARNERS = ("learner_plain", "learner_nested_tapes", "learner_reverse_over_forward")
_MACHINE = "machine"  # measured like a row: the rate of its cores, and the network's operations
_NOT_QUICK = "learner_reverse_over_forward"
_ROWS = ("environment", "environment_inference", *_LEARNERS, "program_plain", "program_meta")


def define_flags() -> None:
    """The flags of this command."""
    define_config_flags()
    define_preset_flag()
    for name, value in _DEFAULTS.items():
        FLAGS.set_default(name, value)
    flags.DEFINE_bool(
        "quick",
        False,
        "Within a minute: shorter windows, one actor of 16 environments, and (unless --rows names "
        "it) without the learner's second derivation. Noisier.",
    )
    define_path("json", None, "File that the same numbers are written to.")
    flags.DEFINE_bool(
        "profile", False, "For the learner's rows: where an update spends its time, by operation."
    )
    define_list("rows", list(_ROWS), f"Which rows: {', '.join(_ROWS)}.", _ROWS)
    flags.DEFINE_string(
        "vary", None, "Measures the rows for each value of a setting: NAME=VALUE,VALUE,…"
    )


def _config(row: str) -> Config:
    """The config of a row: the user's, with the settings of the row."""
    chosen = given_config_flags()
    given = {name: FLAGS[name].value for name in _DEFAULTS} | chosen
    if "network" not in chosen and not _is_atari(given["environment"]):
        given["network"] = "auto"  # the default is for Atari's screens
    batch = given["batch_size"]
    fits = max(batch, _QUICK_ENVIRONMENTS) % min(batch, _QUICK_ENVIRONMENTS) == 0
    if FLAGS.quick and fits:  # each takes up to 0.35 s to make and start, for every row
        given.setdefault("envs_per_actor", _QUICK_ENVIRONMENTS)
        given.setdefault("num_actors", 1)
    if row.endswith("plain"):
        given["meta_parameters"] = "none"
    if row.startswith("learner_") and row != "learner_plain":
        given["meta_gradient_mode"] = row.removeprefix("learner_")
    config = Config(**{config_lib.FIELDS[name].name: value for name, value in given.items()})
    return config_lib.resolve(config)


def _is_atari(environment: str) -> bool:
    try:
        return bool(registry.resolve(environment).game)
    except UnknownEnvironmentError:
        return True  # refused afterwards, whatever the network


def _check_environment(config: Config) -> None:
    try:
        spec = registry.resolve(config.environment)
    except UnknownEnvironmentError as error:
        raise UserError(f"--environment={config.environment}: {error}") from None
    config_lib.refuse_background(config.part(AgentSettings), spec.game)


def _varied() -> tuple[str, list[str]]:
    """The setting of --vary and its values, each checked; no name and one value without."""
    if FLAGS.vary is None:
        return "", [""]
    name, _, texts = FLAGS.vary.partition("=")
    if name not in config_lib.FIELDS or not texts:
        raise UserError(f"--vary={FLAGS.vary}: must be NAME=VALUE,VALUE,… with a flag's NAME")
    values = texts.split(",")
    for value in values:
        try:
            FLAGS[name].parse(value)
        except flags.Error as error:
            raise UserError(" ".join(str(error).split())) from None
        _check_rows()
    return name, values


def _rows() -> list[str]:
    """The rows to measure."""
    if FLAGS.quick and not FLAGS["rows"].present:
        return [row for row in FLAGS.rows if row != _NOT_QUICK]
    return list(FLAGS.rows)


def _check_rows() -> None:
    """Refuses settings that a row cannot be measured with, before any row is."""
    for row in _rows():
        try:
            config = _config(row)
            _check_environment(config)
            _check_processes(config)
        except UserError as error:
            raise UserError(f"row {row} (--rows chooses): {error}") from None


def _effort(row: str) -> Effort:
    from meta_impala.benchmarks.throughput import Effort

    if row == "environment":  # of every shape
        return Effort(3, 0.25, 0.15) if FLAGS.quick else Effort(5, 0.6, 0.3)
    return Effort(3, 0.6, 0.5) if FLAGS.quick else Effort(5, 3.0, 3.0)


def _measure(row: str, results: Any, folder: str) -> None:
    """In a process of its own: measures a row, or the machine's rate.

    Args:
      row: its name.
      results: gets what was measured, or a text that says why nothing was.
      folder: of temporary files; the parent removes it, also if it kills this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    tempfile.tempdir = folder
    from meta_impala.benchmarks import roofline
    from meta_impala.benchmarks import throughput as benchmark

    shapes = benchmark.QUICK_SHAPES if FLAGS.quick else benchmark.CEILING_SHAPES
    functions: dict[str, Callable[[Config, Any], Any]] = {
        "environment": functools.partial(benchmark.environment, shapes=shapes),
        "environment_inference": benchmark.environment_inference,
        **dict.fromkeys(
            _LEARNERS, functools.partial(benchmark.learner_update, profiled=FLAGS.profile)
        ),
        "program_plain": benchmark.program,
        "program_meta": benchmark.program,
    }
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - the program's progress
    try:
        if row == _MACHINE:
            configs = {"meta": _config("program_meta")}
            if any(row.endswith("plain") for row in _rows()):
                configs["plain"] = _config("program_plain")
            results.put(roofline.machine(configs, 0.1 if FLAGS.quick else 0.5))
        else:
            results.put(functions[row](_config(row), _effort(row))._asdict())
    except Exception as error:  # noqa: BLE001 - it is shown by the parent
        results.put(f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """A Ctrl-C inside is handled at the end; in a process that is forked inside, not at all."""
    held: list[bool] = []
    handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda *_: held.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if held:
        signal.raise_signal(signal.SIGINT)


def _row(row: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return _measured(row, folder)


def _measured(row: str, folder: str) -> dict[str, Any]:
    # TensorFlow is imported and not yet used, so that a fork is safe and saves its import.
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=_measure, args=(row, results, folder))
    (busy, stolen), start = _busy_seconds(), time.monotonic()
    own = 0.0
    try:
        with _interrupts_held():
            process.start()
        watched = psutil.Process(process.pid)
        while results.empty():
            if not process.is_alive() or time.monotonic() > start + _ROW_SECONDS:
                raise RunFailed(f"{row}: nothing was measured in {time.monotonic() - start:.0f} s")
            own = max(own, sum(watched.cpu_times()[:2]))
            time.sleep(0.05)
        result = results.get()
    except BaseException:  # KeyboardInterrupt too
        if process.pid is not None:
            process.kill()
        raise
    finally:
        if process.pid is not None:
            process.join(10.0)
            if process.is_alive():
                process.kill()
    if isinstance(result, str):
        raise RunFailed(f"{row}: {result}")
    seconds = (time.monotonic() - start) * (os.cpu_count() or 1)
    now_busy, now_stolen = _busy_seconds()
    return {
        "name": row,
        **result,
        "cpu_share_of_others": max(0.0, now_busy - busy - own) / seconds,
        "cpu_share_of_hypervisor": max(0.0, now_stolen - stolen) / seconds,
    }


def _busy_seconds() -> tuple[float, float]:
    """Of all processors since the machine's start: seconds in which something ran, and seconds
    that the hypervisor gave to other machines although something was to run here (steal)."""
    times = psutil.cpu_times()
    busy = times.user + times.system + getattr(times, "nice", 0.0)
    return busy, getattr(times, "steal", 0.0)


def _processor() -> str:
    """The processor's model, as Linux names it."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Ratios of the rows that were measured."""
    cost = {row["name"]: row["cpu_ms_per_agent_step"] for row in rows}
    speed = {row["name"]: row["frames_per_second"] for row in rows}
    memory = {row["name"]: row["peak_rss_mib"] for row in rows}
    pairs = {
        "program_plain_share_of_ceiling": (cost, "environment", "program_plain"),
        "program_plain_share_of_ceiling_wall": (speed, "program_plain", "environment"),
        "program_meta_share_of_plain": (cost, "program_plain", "program_meta"),
        "program_meta_share_of_plain_wall": (speed, "program_meta", "program_plain"),
        "learner_nested_tapes_over_plain": (cost, "learner_nested_tapes", "learner_plain"),
        "learner_reverse_over_forward_over_plain": (
            cost,
            "learner_reverse_over_forward",
            "learner_plain",
        ),
        "memory_nested_tapes_over_plain": (memory, "learner_nested_tapes", "learner_plain"),
        "memory_reverse_over_forward_over_plain": (
            memory,
            "learner_reverse_over_forward",
            "learner_plain",
        ),
    }
    return {
        name: table[above] / table[below]
        for name, (table, above, below) in pairs.items()
        if above in table and below in table
    }


def _percent(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())


def _print(row: dict[str, Any], label: str = "") -> None:
    command.say(
        f"{row['name'] + ' ' + label:40} {row['frames_per_second']:10,.0f} "
        f"{row['cpu_ms_per_agent_step']:12.3f} {row['peak_rss_mib']:10,.0f} "
        f"{100 * row['cpu_share_of_others']:8.0f} % {100 * row['cpu_share_of_hypervisor']:8.0f} %"
    )


def _say_details(rows: list[dict[str, Any]]) -> None:
    """Where the time of each row went."""
    for row in rows:
        details = row["details"]
        if row["name"] == "environment":
            command.say(
                f"the ceiling: {details['environments']} environments, {details['threads']} threads"
            )
        for who in ("learner", "actors"):
            if who in details:
                command.say(f"{row['name']}, {who}: {_percent(details[who])}")
        if "operations_ms" in details:
            dearest = list(details["operations_ms"].items())[:_LISTED_OPERATIONS]
            listed = ", ".join(f"{kind} {spent:.1f}" for kind, spent in dearest)
            command.say(f"{row['name']}, ms of an update by operation: {listed}")


def _check_processes(config: Config) -> None:
    if config.actors == "ray":
        raise UserError("--actors=ray: must be threads (tools/scaling_plan.py measures Ray's)")
    if config.num_learners > 1:
        raise UserError(
            f"--learner_addresses={config.learner_addresses}: must be empty; one learner is "
            "measured"
        )


def main() -> int:
    """Runs the command; returns its exit code."""
    if FLAGS.json:
        check_file(pathlib.Path(FLAGS.json), "json")
    config = _config("program_meta")
    _check_environment(config)
    _check_processes(config)
    load = os.getloadavg()[0]
    varied, values = _varied()
    if not varied:
        _check_rows()
    command.load_tensorflow()
    from meta_impala.benchmarks import roofline

    raise_on_interrupt()  # the process of a row has to be ended

    command.say(
        f"{config.environment}, {config.network} network, T {config.unroll_length}, "
        f"B {config.batch_size}, B' {config.meta_batch_size}, {config.num_actors} actors × "
        f"{config.envs_per_actor} environments; {os.cpu_count()} CPUs, "
        f"load {load:.1f}"
    )
    command.say(
        f"{'':40} {'frames/s':>10} {'CPU-ms/step':>12} {'peak MiB':>10} {'others':>10} "
        f"{'stolen':>10}"
    )
    rows = []
    for value in values:
        if varied:
            FLAGS[varied].parse(value)
        for name in _rows():
            rows.append(_row(name) | ({"varied": {varied: value}} if varied else {}))
            _print(rows[-1], f"{varied}={value}" if varied else "")
    command.say("")
    found = {} if varied else ratios(rows)
    for name, ratio in found.items():
        command.say(f"{name:45} {ratio:.3f}")
    _say_details(rows)
    floor = None
    if not varied:
        floor = roofline.roofline(_row(_MACHINE), rows)
        command.say("")
        for line in roofline.lines(floor):
            command.say(line)
    if FLAGS.json:
        document = {
            "rows": rows,
            "ratios": found,
            "roofline": floor,
            "config": json.loads(config_lib.to_json(config)),
            "machine": {"cpus": os.cpu_count(), "processor": _processor(), "load": load},
            "quick": FLAGS.quick,
        }
        write_atomically(pathlib.Path(FLAGS.json), json_document(document))
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main)
