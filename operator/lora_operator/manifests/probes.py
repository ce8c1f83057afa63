"""When an engine may have requests: once it has answered one, and as long as it says it is well.

A health path answers before weights are loaded (engines that load at the first request) or kernels
are built; only a completion proves both. It is asked at the start alone: later it would wait behind
the clients' own requests, and a pod that is merely busy would be taken out.
"""

from lora_api.runtimes import SERVING_PORT, RuntimeRecipe
from lora_operator.manifests.pods import Json

_PERIOD_SECONDS = 5
_FIRST_COMPLETION_SECONDS = 60
_COMPLETION = f"""\
import json, sys, urllib.request as web
body = json.dumps({{"model": sys.argv[1], "prompt": "a", "max_tokens": 1}}).encode()
ask = web.Request(sys.argv[2], body, {{"Content-Type": "application/json"}})
direct = web.build_opener(web.ProxyHandler({{}}))
json.load(direct.open(ask, timeout={_FIRST_COMPLETION_SECONDS}))["choices"][0]["text"]
"""


def completion_command(model_name: str, port: int = SERVING_PORT) -> list[str]:
    """Argv that exits 0 when the engine in the same container completes a prompt.

    It needs the Python that every engine of `RECIPES` runs on, and its standard library alone.
    """
    url = f"http://127.0.0.1:{port}/v1/completions"
    return ["python3", "-c", _COMPLETION, model_name, url]


def engine_probes(runtime: RuntimeRecipe, model_name: str, port: str, start_seconds: float) -> Json:
    """The probes of an engine's container.

    Args:
        runtime: The engine.
        model_name: What requests call the model.
        port: The container's port, by name.
        start_seconds: How long it may take to come up before it is started again.
    """
    healthy = {"httpGet": {"path": runtime.health_path, "port": port}}
    return {
        "startupProbe": {
            "exec": {"command": completion_command(model_name)},
            "periodSeconds": _PERIOD_SECONDS,
            "timeoutSeconds": _FIRST_COMPLETION_SECONDS,
            "failureThreshold": max(1, int(start_seconds) // _PERIOD_SECONDS),
        },
        "readinessProbe": healthy | {
            "periodSeconds": _PERIOD_SECONDS, "timeoutSeconds": 5, "failureThreshold": 3,
        },
        "livenessProbe": healthy | {
            "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6,
        },
    }  # fmt: skip
