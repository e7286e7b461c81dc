"""`python -m cluster VERB`: the cluster from the command line."""

from __future__ import annotations

import argparse
import json
import shlex
import sys

from . import NodeChange, build_binaries, build_images, change_node, down, environment, info, load, up
from .images import DEFAULT_TAG, TABLE
from .shell import ClusterError, say


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m cluster", description="A Kubernetes cluster for tests.")
    verbs = top.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("up", help="make the cluster, or see that it is there")
    verb.add_argument("--nodes", type=int, default=None, help="at least so many nodes (default: $NODES, or 1)")
    verbs.add_parser("down", help="take it down and leave nothing behind")
    verbs.add_parser("env", help="print what a shell has to export to use it")
    verbs.add_parser("info", help="print what tests need to know, as JSON")
    verb = verbs.add_parser("build-images", help="build the project's images that have changed")
    verb.add_argument("names", nargs="*", metavar="NAME", help=", ".join(image.name for image in TABLE))
    verb.add_argument("--tag", default=DEFAULT_TAG)
    verb = verbs.add_parser("load", help="bring images into every node")
    verb.add_argument("images", nargs="*", metavar="IMAGE", help="default: all that build-images builds")
    verb.add_argument("--tag", default=DEFAULT_TAG, help="the tag of those that are loaded by default")
    verb = verbs.add_parser("node", help="add a node to the running local cluster, take it away, or let it fail")
    verb.add_argument("change", choices=[change.value for change in NodeChange])
    verb.add_argument("number", type=int, nargs="?", default=2)
    verbs.add_parser("binaries", help="build the local cluster's programs (helm among them) where there can be one")
    return top


def execute(arguments: argparse.Namespace) -> None:
    match arguments.verb:
        case "up":
            found = up(arguments.nodes)
            say(f"{found.provider} cluster is up: {', '.join(found.nodes)}; KUBECONFIG={found.kubeconfig}")
        case "down":
            down()
        case "env":
            for name, value in environment(info(), "$PATH").items():
                quoted = f'"{value}"' if "$PATH" in value else shlex.quote(value)
                print(f"export {name}={quoted}")
        case "info":
            print(json.dumps(info().as_dict(), indent=2))
        case "build-images":
            build_images(arguments.names, arguments.tag)
        case "load":
            load(*(arguments.images or [image.tagged(arguments.tag) for image in TABLE]))
        case "node":
            change_node(NodeChange(arguments.change), arguments.number)
        case "binaries":
            build_binaries()


def main() -> int:
    try:
        execute(parser().parse_args())
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
