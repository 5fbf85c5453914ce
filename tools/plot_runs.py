"""Draws the learning curves of run folders: the same as `meta-impala plot`."""

from meta_impala import command, plot

if __name__ == "__main__":
    plot.define_flags()
    command.run(plot.main, plot.POSITIONAL)
