"""`python -m lora_jobs`."""

from lora_jobs.cli import main

main()
