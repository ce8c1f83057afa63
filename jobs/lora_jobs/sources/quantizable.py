"""Can the base be quantized by every recipe, for as many accelerators as will serve it?

Asked of headers and config, before a stage takes an accelerator. A merge changes no shape of the
layers that are quantized.
"""

from lora_api.line import recipes
from lora_api.runtimes import tensor_parallel_of
from lora_api.spec import Spec
from lora_jobs.errors import Refused
from lora_jobs.quantizing.admission import modules_to_quantize, refuse_unsupported
from lora_jobs.sources.compatibility import read_document, read_shapes
from lora_jobs.sources.pins import Pin
from lora_jobs.sources.place import Source
from lora_jobs.sources.selection import CONFIG


def check_recipes(spec: Spec, base: Source, pin: Pin) -> None:
    """Try every candidate's group size on every layer; without candidates that quantize, nothing.

    Raises:
        Refused: The architecture, or a layer's shape, is none that a recipe can quantize.
    """
    groups = {r.name: r.low_bits.group_size for r in recipes(spec) if r.low_bits}
    if not groups:
        return
    refuse_unsupported(read_document(base, CONFIG))
    shapes = read_shapes(base, pin)
    parallel = tensor_parallel_of(spec.serving.args or [])
    for name, group_size in groups.items():
        try:
            modules_to_quantize(shapes, group_size, parallel)
        except Refused as error:
            raise Refused(error.reason, f"candidate {name}: {error}") from None
