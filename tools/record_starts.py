"""Records starts for `evaluate --starts=human`: the same as `meta-impala record`."""

from meta_impala import command, record_starts

if __name__ == "__main__":
    record_starts.define_flags()
    command.run(record_starts.main)
