"""The contract between users, the operator and the stage programs.

Typed models of the LoRADeployment object, its conditions, the names of what belongs to it, the
digests that identify work, the JSON that Jobs receive and return, and the pure decisions that the
operator and the local run share: the line of stages, the gates and the choice of a candidate.

Imports pydantic and the standard library only; nothing here reads a clock, a file or a network.
"""

GROUP = "lora-operator.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "LoRADeployment"
PLURAL = "loradeployments"
SINGULAR = "loradeployment"
SHORT_NAME = "lora"
