"""`kubectl lora`: what a LoRADeployment does and waits for, on one screen."""
