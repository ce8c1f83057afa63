"""What vLLM runs in each of its processes, where it shares an environment with us: on CPUs.

Linux gives a process the tiles of AMX on request only, and ends it with an illegal instruction
otherwise. vLLM 0.32 takes its own AMX kernels where the CPU has them, for 4-bit weights too, and
leaves the request to oneDNN, which may come later: the first prompt then ends the engine.
"""


def request_amx() -> None:
    """Ask for AMX on behalf of this process; nothing where the CPU has none."""
    import torch

    if torch.cpu._is_amx_tile_supported():
        torch.cpu._init_amx()
