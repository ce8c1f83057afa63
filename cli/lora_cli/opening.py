"""A report in the user's browser: fetched with the user's own credentials, never the cluster's."""

import shlex
import shutil
import subprocess
import tempfile
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class NotOpened(Exception):
    """Why no browser shows it, and what to do by hand."""


def endpoint_of(spec: Mapping[str, Any]) -> str:
    """The S3 endpoint that the object names for its artifacts; empty where a profile names it."""
    name = (spec.get("artifact") or {}).get("connection", "")
    connections = spec.get("connections") or ()
    servers = (c.get("s3") or {} for c in connections if c["name"] == name)
    return str(next(servers, {}).get("endpoint", ""))


def show(uri: str, endpoint: str) -> None:
    """Open a report; one in a bucket is fetched by the AWS CLI first.

    Args:
        uri: `file://`, `https://` or `s3://`.
        endpoint: Of the bucket; empty is what the AWS CLI takes by itself.

    Raises:
        NotOpened: It could not be fetched, or there is no browser.
    """
    if uri.startswith("s3://"):
        uri = _fetched(uri, endpoint).as_uri()
    if not webbrowser.open(uri):
        raise NotOpened(f"there is no browser here; the report is {uri}")


def _fetched(uri: str, endpoint: str) -> Path:
    options = ["--endpoint-url", endpoint] if endpoint else []
    by_hand = shlex.join(["aws", "s3", "cp", uri, "report.html", *options])
    if not shutil.which("aws"):
        raise NotOpened(
            f"the AWS CLI, which would fetch it, is not on the PATH; it does: {by_hand}"
        )
    target = Path(tempfile.mkdtemp(prefix="lora-report-")) / "report.html"
    command = ["aws", "s3", "cp", "--only-show-errors", uri, str(target), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip()
        raise NotOpened(f"the AWS CLI could not fetch it with your credentials: {said}\n{by_hand}")
    return target
