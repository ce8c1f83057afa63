"""`python -m lora_cli`, for where the scripts are not on the path."""

from lora_cli.app import main

main()
