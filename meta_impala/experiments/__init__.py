"""Many runs: suites and population based training."""
