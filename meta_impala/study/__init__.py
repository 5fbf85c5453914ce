"""The study: does adapting γ and λ help, and why? The design is `testdata/study/README.md`."""
