"""The operator: watches LoRADeployments, plans purely, acts by deterministic names, tells the truth in status."""
