"""`python -m meta_impala COMMAND`: the same as `meta-impala COMMAND`."""

from meta_impala.cli import main

if __name__ == "__main__":
    main()
