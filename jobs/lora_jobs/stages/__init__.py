"""One module a stage: `run(context) -> StageResult`, inputs from the store, outputs to it."""
