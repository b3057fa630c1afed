"""``python -m tests.demo``: on this machine where it has several nodes, else in a guest."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from numad_py.errors import NumadError
from tests.demo import guest, here
from tests.guest.image import RELEASES, GuestError
from tests.guest.project import build_load


def main() -> int:
    """Choose the place and show the main job."""
    parser = argparse.ArgumentParser(prog="python -m tests.demo")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--here", action="store_true", help="on this machine, or say why not")
    place.add_argument("--guest", action="store_true", help="in a guest in any case")
    parser.add_argument("--release", choices=RELEASES, default=RELEASES[0], help="of the guest")
    parser.add_argument("--load", type=Path, help="a load generator that is built already")
    arguments = parser.parse_args()
    try:
        topology = None if arguments.guest else here.possible()
        if topology is not None:
            print("this machine has several nodes: the demo runs right here")
            return here.demo(topology, arguments.load or build_load())
        if arguments.here:
            print("this machine has one node with CPUs and memory: nothing to move here; without "
                  "--here the demo runs in a guest of four nodes", file=sys.stderr)  # fmt: skip
            return 1
        if not arguments.guest:
            print("this machine has one node; the demo runs in a guest of four nodes")
        return guest.demo(arguments.release)
    except (GuestError, NumadError) as error:
        print(f"no demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
