"""Compares evaluated runs with the published scores: the same as `meta-impala compare`."""

from meta_impala import command, compare

if __name__ == "__main__":
    compare.define_flags()
    command.run(compare.main, compare.POSITIONAL)
