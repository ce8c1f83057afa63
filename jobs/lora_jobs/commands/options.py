"""Options that several verbs have, each in the same words."""

from typing import Annotated

import typer

STORE_HELP = "s3://BUCKET/PREFIX or a folder."

Store = Annotated[str, typer.Option(help=STORE_HELP)]
Scope = Annotated[str, typer.Option(help="Scope in the store: [CLUSTER/]NAMESPACE.")]
Connection = Annotated[
    str, typer.Option(help="JSON as an item of spec.connections; its keys are files.")
]
Endpoint = Annotated[
    str, typer.Option(help="S3 endpoint, with keys from the environment or profile.")
]
