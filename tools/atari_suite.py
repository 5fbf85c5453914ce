"""Runs a suite, games × seeds × variants: the same as `meta-impala suite`."""

from meta_impala import command, run_suite

if __name__ == "__main__":
    run_suite.define_flags()
    command.run(run_suite.main, run_suite.POSITIONAL)
