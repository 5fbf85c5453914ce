"""The two illustrative examples of Xu et al. 2018, section 2: learning a γ or a λ per state.

    meta-impala illustrative --example=discount --outdir=runs/discount
    meta-impala illustrative --example=bootstrap --outdir=runs/bootstrap --explain

Prints a table and writes final_values.csv, curves.csv, settings.json and figure.png to the folder;
with --explain also explained.md, explained.png and their numbers. Takes at most a minute or two on
two cores.
"""

from __future__ import annotations

import time

from absl import flags

from meta_impala import command
from meta_impala.illustrations import settings as settings_lib
from meta_impala.illustrations.settings import Settings
from meta_impala.storage import results_folder
from meta_impala.system.user_path import define_path

FLAGS = flags.FLAGS


def define_flags() -> None:
    """The flags of this command: one per switch of `Settings`, and what to write where."""
    definers = {int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string}
    for name, field in settings_lib.FIELDS.items():
        help_text = f"{field.metadata['help']} Allowed: {settings_lib.allowed(field)}."
        definers[settings_lib.field_type(field)](name, field.default, help_text)
    define_path("outdir", None, "Folder of the results; made if it is not there.")
    flags.DEFINE_bool("figure", True, "Draw the figure (--nofigure: text and numbers only).")
    flags.DEFINE_bool(
        "explain", False, "Also run the experiments that explain the result (see explained.md)."
    )


def _settings() -> Settings:
    values = {field.name: FLAGS[name].value for name, field in settings_lib.FIELDS.items()}
    return settings_lib.resolve(Settings(**values))


def main() -> int:
    """Runs the command; returns its exit code."""
    from meta_impala.illustrations import chain_results as results

    settings = _settings()
    outdir = results_folder.check_outdir(FLAGS.outdir)
    began = time.monotonic()

    command.load_tensorflow()
    from meta_impala.illustrations import simulation

    history = simulation.simulate(settings)
    results_folder.make_outdir(str(outdir))
    results.write_settings(outdir / "settings.json", settings)
    results.write_final_values(outdir / "final_values.csv", settings, history.eta[-1])
    results.write_curves(
        outdir / "curves.csv", settings, history.episodes, history.eta, history.values
    )
    command.say(results.summary(settings, history.eta[-1], history.values[-1]))
    if FLAGS.figure:
        from meta_impala.illustrations import chain_figure as figure

        figure.draw_example(outdir / "figure.png", settings, history.episodes, history.eta)
    if FLAGS.explain:
        from meta_impala.illustrations import explained_tables, explanations

        evidence = explanations.gather(settings, history)
        text = explanations.sentences(settings, evidence)
        results_folder.write_text(outdir / "explained.md", text)
        explained_tables.write(outdir, settings, evidence)
        command.say("\n" + text.removesuffix("\n"))
        if FLAGS.figure:
            from meta_impala.illustrations import explained_figure

            explained_figure.draw(outdir / "explained.png", settings, evidence)
    seconds = time.monotonic() - began
    command.say(f"\n{settings.seeds} seeds, {seconds:.0f} s; results are in {outdir}")
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main)
