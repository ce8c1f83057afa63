"""collect: remove the releases of an object that are not kept, and what only they needed.

Which are kept is decided by who knows what serves, so their ids come with the request.
"""

import time

from lora_api.jobcontract import StageResult
from lora_api.times import seconds_of
from lora_jobs.collecting import bytes_of, collect, filed_releases, find_garbage, made_by
from lora_jobs.context import StageContext
from lora_jobs.store.opening import open_store

MIN_AGE = "168h"
"""A run beside this one may be about to use what a young release was made from."""


def run(context: StageContext) -> StageResult:
    """Remove all releases but those in `call.parameters`.

    Raises:
        Refused: A record in the scope cannot be read.
    """
    request = context.request
    store = open_store(request.store, request.connections)
    keep = {str(release) for release in request.call.parameters["keep"]}
    younger_than = time.time() - seconds_of(MIN_AGE)
    name = request.run.name
    garbage = find_garbage(filed_releases(store), name, keep, younger_than, made_by(store))
    freed = sum(bytes_of(store, garbage).values())
    collect(store, name, garbage, context.progress)
    spared = f"; {len(garbage.too_young)} younger than 7 days stay" if garbage.too_young else ""
    return StageResult(
        stage=request.call.stage,
        input_hash=request.call.input_hash,
        message=f"removed {len(garbage.releases)} releases, {freed / 1e9:.2f} GB{spared}",
    )
