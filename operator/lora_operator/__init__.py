"""The operator: observe, plan purely, act by deterministic names, tell the truth in status."""
