"""The meta-gradient of a run taken apart: sampled, tabulated, drawn."""
