"""`python -m meta_impala COMMAND`: the same as `meta-impala COMMAND`, and where both begin."""

from meta_impala.system.interrupt import leave_on_interrupt


def main() -> None:
    """Runs the command that the first argument names."""
    leave_on_interrupt()  # before the imports, which take a second
    from meta_impala import cli

    cli.main()


if __name__ == "__main__":
    main()
