"""What training costs on this machine, part by part: the same as `meta-impala benchmark`."""

from meta_impala import benchmark, command

if __name__ == "__main__":
    benchmark.define_flags()
    command.run(benchmark.main)
