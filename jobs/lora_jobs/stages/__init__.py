"""One module a stage, each with `run(context) -> StageResult`: inputs from the store, core, outputs to it."""
