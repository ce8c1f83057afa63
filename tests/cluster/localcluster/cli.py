"""The command line: `localcluster up|down|status|build|env|gpus|signal|image|load-image`."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from localcluster import baseimage, host, images, node, paths, tools
from localcluster.console import ClusterError, say

_ABOUT = """A real single-node Kubernetes and a real S3 server in namespaces of their own.
First use: `up` builds everything (about 10 minutes), later it takes seconds.
`eval "$(python3 tests/cluster/localcluster_cli.py env)"` points kubectl and S3 clients at it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; errors for people are printed without a traceback."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        return code
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="localcluster", description=_ABOUT, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, about: str, function: object) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about, description=about)
        one.set_defaults(run=function)
        return one

    command("build", "build or install everything that is missing; starts nothing", _build)
    command("up", "start the cluster; at once when it is already healthy", _up)
    down = command("down", "stop the cluster; images and S3 data stay", _down)
    down.add_argument("--wipe", action="store_true", help="remove images and S3 data too")
    command("status", "services, node and S3; exit code 1 unless healthy", _status)
    command("env", "print shell exports: KUBECONFIG, PATH, S3 endpoint and keys", _env)
    gpus = command("gpus", "set nvidia.com/gpu on the node", _gpus)
    gpus.add_argument("count", type=int)
    sent = command("signal", "signal one service; a dead one is restarted after 1 s", _signal)
    sent.add_argument("service")
    sent.add_argument("--signal", default="KILL", help="KILL (default), STOP, CONT, TERM ...")
    _image_commands(command("image", "build images without a registry", None))
    load = command("load-image", "import an image archive (docker or OCI) into the cluster", _load)
    load.add_argument("archive", type=Path)
    return parser


def _image_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="build a Dockerfile's target; prints the image name")
    build.set_defaults(run=_image_build)
    build.add_argument("target", help="the stage's name")
    build.add_argument("--dockerfile", type=Path, default=Path("Dockerfile"))
    build.add_argument("--context", type=Path, help="default: the Dockerfile's folder")
    build.add_argument(
        "--build-arg", action="append", default=[], metavar="K=V",
        help="{base} in V stands for the base image's name",
    )  # fmt: skip
    commands.add_parser("ls", help="list built images").set_defaults(run=_image_list)
    remove = commands.add_parser("rm", help="remove a built image from cluster and cache")
    remove.set_defaults(run=_image_remove)
    remove.add_argument("reference")


def _build(_: argparse.Namespace) -> int:
    """Packages and base image come over the network while Go keeps the cores busy."""
    host.require_node_host()
    failures: list[BaseException] = []

    def beside() -> None:
        try:
            host.ensure_packages(images=True)
            baseimage.ensure()
        except BaseException as error:  # handed to the main thread
            failures.append(error)

    thread = threading.Thread(target=beside, daemon=True)
    thread.start()
    tools.build_all()
    thread.join()
    if failures:
        raise failures[0]
    say(f"everything is built; programs are linked in {paths.bin_links()}")
    return 0


def _up(_: argparse.Namespace) -> int:
    kubeconfig = node.up()
    images.load_all()
    say(f'use it: eval "$({shlex.quote(sys.executable)} {shlex.quote(sys.argv[0])} env)"')
    print(kubeconfig)
    return 0


def _down(arguments: argparse.Namespace) -> int:
    node.down(wipe=arguments.wipe)
    return 0


def _status(_: argparse.Namespace) -> int:
    init = node.running()
    if init is None:
        print("down")
        return 1
    for name, state in sorted(node.services().items()):
        log = paths.logs() / f"{name}.log"
        print(f"{name:26} pid {state['pid']:<7} restarts {state['restarts']:<3} {log}")
    try:
        problems = node.problems()
    except OSError as error:
        problems = [f"the API server does not answer: {error}"]
    print(f"namespaces                 pid {init.pid} (on the host)")
    print(f"API {node.SERVER}  S3 {node.S3_ENDPOINT}")
    print("; ".join(problems) or "healthy")
    return 1 if problems else 0


def _env(_: argparse.Namespace) -> int:
    for name, value in node.environment().items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _gpus(arguments: argparse.Namespace) -> int:
    node.set_gpus(arguments.count)
    say(f"{paths.NODE_NAME} has nvidia.com/gpu: {arguments.count}")
    return 0


def _signal(arguments: argparse.Namespace) -> int:
    try:
        how = signal.Signals[f"SIG{arguments.signal.upper().removeprefix('SIG')}"]
    except KeyError as error:
        raise ClusterError(f"no signal {arguments.signal}") from error
    node.send_signal(arguments.service, how)
    return 0


def _image_build(arguments: argparse.Namespace) -> int:
    pairs = [pair.partition("=") for pair in arguments.build_arg]
    print(
        images.build(
            arguments.target,
            dockerfile=arguments.dockerfile,
            context=arguments.context,
            build_args={key: value for key, _, value in pairs},
        )
    )
    return 0


def _image_list(_: argparse.Namespace) -> int:
    for record in images.built():
        print(f"{record.reference}  {record.created}")
    return 0


def _image_remove(arguments: argparse.Namespace) -> int:
    images.remove(arguments.reference)
    return 0


def _load(arguments: argparse.Namespace) -> int:
    print("\n".join(images.load_archive(arguments.archive)))
    return 0
