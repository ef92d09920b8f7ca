"""What a weight cache is told on its command line."""

import argparse
import re
import socket
from collections.abc import Sequence
from pathlib import Path

_ABOUT = "Keeps models on this node's volume, and tells others what is there."
_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SUFFIXES |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_QUANTITY = re.compile(r"(\d{1,15})([kMGT]|[KMGT]i)?")


def quantity(text: str) -> int:
    """`500Gi` → bytes. Raises ValueError."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no quantity of bytes; write one such as 500Gi or 20M")
    return int(found[1]) * _SUFFIXES[found[2] or ""]


def read_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="cotenant cache serve", description=_ABOUT)
    parser.add_argument("--root", type=Path, required=True, help="the volume's folder")
    parser.add_argument("--budget", type=quantity, help="bytes that it may use, such as 500Gi; default: the disk")
    parser.add_argument("--socket", type=Path, help="Unix socket for the engines of this pod")
    parser.add_argument("--listen", default="", help="host:port for the conductor, the operator and other nodes")
    parser.add_argument("--token-file", type=Path, help="the pool's token: --listen asks for it, peers are shown it")
    parser.add_argument("--preload", type=Path, help="preload list (JSON), looked at again and again")
    parser.add_argument("--at-once", type=int, default=2, help="models of the preload list that come together")
    parser.add_argument("--peers-file", type=Path, help="a line host:port for each other node")
    parser.add_argument("--peers-dns", default="", help="name:port, of which all addresses are other nodes")
    parser.add_argument("--hub-endpoint", default="", help="default: HF_ENDPOINT, or https://huggingface.co")
    parser.add_argument("--hub-token-file", type=Path, help="default: HF_TOKEN, or the file of the `hf` tool")
    parser.add_argument("--rate", type=quantity, default=0, help="bytes a second that all fetches take; 0: no limit")
    parser.add_argument("--verify-rate", type=quantity, default=20 * 2**20, help="bytes a second; 0: never again")
    parser.add_argument("--node", default="", help="name in reports; default: the host's")
    args = parser.parse_args(words)
    if not args.socket and not args.listen:
        parser.error("--socket and --listen are both missing: nobody could ask")
    if args.listen and not args.token_file:
        parser.error("--listen needs --token-file: what is asked over the network needs the pool's token")
    if args.listen and not host_port(args.listen)[1]:
        parser.error(f"--listen {args.listen!r} is no host:port, such as 0.0.0.0:8790")
    return args


def node_name(args: argparse.Namespace) -> str:
    """As reports have it."""
    return args.node or socket.gethostname()


def host_port(text: str) -> tuple[str, int]:
    """Port 0 where there is none. An IPv6 host loses its brackets."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port) if port.isdigit() else 0
