"""`lora-jobs stage`: what a stage Job runs."""

import sys

from lora_api.jobcontract import ExitCode


def stage() -> None:
    """Run the stage that the environment asks for; the entry point of Jobs.

    The request is JSON in LORA_STAGE_REQUEST, the result is written to LORA_STAGE_RESULT (default
    /dev/termination-log), progress lines go to stdout. Credentials are files below
    LORA_CREDENTIALS_DIR, one folder a connection.
    """
    from lora_jobs.runner import UsageError, run_from_environment
    from lora_jobs.termination import end_promptly_on_sigterm

    end_promptly_on_sigterm()
    try:
        run_from_environment()
    except UsageError as error:
        print(error, file=sys.stderr)
        sys.exit(ExitCode.USAGE)
