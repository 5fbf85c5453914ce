"""The agent of a config: its network, the policy that acts, and the snapshots it acts by."""
