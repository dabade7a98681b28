"""The command line: results on standard output, what happens and what goes wrong on standard error."""

import argparse
import functools
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from devcluster import buildah, builds, cleanup, docker, kind, local, minio, network, packages, product
from devcluster.errors import ClusterError
from devcluster.pins import read_pins
from devcluster.state import Layout, Record

# What `make test` uses; the others are built when somebody asks for them by name.
USUAL_BUILDS = ("kubernetes", "coredns", "minio", "helm", "helm-unittest", "kubeconform")
# Folders in the cache: of what builds images, and of a node's containerd.
IMAGES = "images"
NODE_IMAGES = "containerd"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _parser().parse_args(argv)
    cache = builds.cache_folder(os.environ)
    printed: str | None
    try:
        printed = options.command(options, cache)
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if printed:
        sys.stdout.write(f"{printed.rstrip()}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cluster", description="A one-node Kubernetes and a MinIO for the tests.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        added.add_argument("--state", type=Path, help="folder of the cluster (default: in the user's cache folder)")
        return added

    up = add("up", _up, "start the cluster unless it runs; print the kubeconfig's path")
    up.add_argument("--control-plane", action="store_true", help="etcd, API server and controller manager are enough")
    add("down", _down, "stop the cluster and remove everything but its logs")
    add("kubeconfig", _kubeconfig, "print the path of the running cluster's kubeconfig")
    for name, command, text in (
        ("build-images", _build_images, "build the product's images and print their names as JSON"),
        (
            "load-images",
            _load_images,
            "put the product's images on the node, built if need be; print their names as JSON",
        ),
    ):
        add(name, command, text).add_argument(
            "--base",
            help="base image, by its full name in a registry (default: Docker's official Python, else made here)",
        )
    image = add("load-image", _load_image, "put the images of a docker or OCI archive on the node")
    image.add_argument("archive", type=Path)
    stop = add("stop-component", _stop_component, "end one component")
    stop.add_argument("name")
    stop.add_argument("--kill", action="store_true", help="with SIGKILL at once")
    add("start-component", _start_component, "start a stopped component and wait until it serves").add_argument("name")
    add("logs", _logs, "print a component's log").add_argument("name")
    build = add("build", _build, "build tools if the cache lacks them; print their folders")
    build.add_argument("names", nargs="*", metavar="NAME", help=f"default: {' '.join(USUAL_BUILDS)}")
    add("packages", _packages, "install the Debian packages of servers that tests start for themselves")
    server = add("minio", _minio, "start a MinIO and print its endpoint and credentials file as JSON, or stop it")
    server.add_argument("action", choices=["up", "down"])
    server.add_argument("--address", default=network.LOOPBACK, help="where it listens (default: %(default)s)")
    return parser


def _layout(options: argparse.Namespace, cache: Path, name: str = "cluster") -> Layout:
    return Layout.at(options.state or cache / name)


def _on_kind(layout: Layout) -> bool:
    """Whether the cluster is kind's: as it was started, else where Docker answers."""
    record = Record.read(layout.record)
    return record.backend == kind.BACKEND if record else kind.docker_answers()


def _up(options: argparse.Namespace, cache: Path) -> str:
    return str(_start(_layout(options, cache), cache, with_node=not options.control_plane))


def _start(layout: Layout, cache: Path, *, with_node: bool) -> Path:
    tools = read_pins()
    if _on_kind(layout):
        return kind.up(layout, builds.binaries(tools["kind"], cache))
    binaries = functools.partial(builds.binaries, cache=cache)
    return local.up(layout, tools, binaries, cache / NODE_IMAGES, with_node=with_node)


def _down(options: argparse.Namespace, cache: Path) -> None:
    layout = _layout(options, cache)
    if _on_kind(layout):
        kind.down(layout)
    else:
        cleanup.down(layout)


def _kubeconfig(options: argparse.Namespace, cache: Path) -> str:
    file = _layout(options, cache).kubeconfig
    if not file.exists():
        raise ClusterError("No cluster runs here.", "Start one: up")
    return str(file)


def _load_image(options: argparse.Namespace, cache: Path) -> str:
    layout = _layout(options, cache)
    return kind.load_image(layout, options.archive) if _on_kind(layout) else local.load_image(layout, options.archive)


def _build_images(options: argparse.Namespace, cache: Path) -> str:
    builder = docker.Docker(options.base) if _on_kind(_layout(options, cache)) else _buildah(options, cache)
    with product.session(builder, cache / IMAGES) as place:
        return json.dumps(product.build(builder, place, always=True), indent=1)


def _load_images(options: argparse.Namespace, cache: Path) -> str:
    layout = _layout(options, cache)
    was_there = layout.kubeconfig.exists()
    _start(layout, cache, with_node=True)
    try:
        return json.dumps(_on_node(layout, options, cache), indent=1)
    finally:
        # The images stay for the next cluster.
        if not was_there:
            _down(options, cache)


def _on_node(layout: Layout, options: argparse.Namespace, cache: Path) -> dict[str, str]:
    """Puts the product's images on the running node; their names and tags."""
    if _on_kind(layout):
        builder = docker.Docker(options.base)
        with product.session(builder, cache / IMAGES) as place:
            references = product.build(builder, place)
            kind.load_images(layout, references.values())
        return references
    return local.load_product(layout, _buildah(options, cache), cache / IMAGES)


def _buildah(options: argparse.Namespace, cache: Path) -> buildah.Buildah:
    return buildah.Buildah(cache / IMAGES, builds.uv_cache_folder(os.environ), options.base)


def _stop_component(options: argparse.Namespace, cache: Path) -> None:
    layout = _layout(options, cache)
    first = signal.SIGKILL if options.kill else signal.SIGTERM
    (kind if _on_kind(layout) else local).stop_component(layout, options.name, first)


def _start_component(options: argparse.Namespace, cache: Path) -> None:
    layout = _layout(options, cache)
    (kind if _on_kind(layout) else local).start_component(layout, options.name)


def _logs(options: argparse.Namespace, cache: Path) -> str:
    file = _layout(options, cache).log(options.name)
    if not file.exists():
        there = ", ".join(sorted(log.stem for log in file.parent.glob("*.log"))) or "none"
        raise ClusterError(f"There is no log of {options.name}.", f"There are: {there}.")
    return file.read_text(errors="replace")


def _build(options: argparse.Namespace, cache: Path) -> str:
    tools = read_pins()
    unknown = [name for name in options.names if name not in tools]
    if unknown:
        raise ClusterError(f"No tool is called {', '.join(unknown)}.", f"There are: {', '.join(tools)}.")
    return "\n".join(str(builds.binaries(tools[name], cache)) for name in options.names or USUAL_BUILDS)


def _packages(_options: argparse.Namespace, _cache: Path) -> None:
    packages.ensure(packages.TESTS, root=os.geteuid() == 0)


def _minio(options: argparse.Namespace, cache: Path) -> str | None:
    layout = _layout(options, cache, "minio")
    if options.action == "down":
        minio.down(layout)
        return None
    return json.dumps(minio.up(layout, builds.binaries(read_pins()["minio"], cache), options.address))
