"""``python -m tests.guest``: build an image, or boot a guest and run a command in it."""

from __future__ import annotations

import argparse
import subprocess
import sys

from tests.guest.image import RELEASES, GuestError, image
from tests.guest.machine import Machine
from tests.guest.project import install
from tests.guest.topology import TOPOLOGIES


def main() -> int:
    """Parse and do it."""
    parser = argparse.ArgumentParser(prog="python -m tests.guest")
    parser.add_argument("verb", choices=["build", "run", "shell"])
    parser.add_argument("--release", choices=RELEASES, default="bookworm")
    parser.add_argument("--topology", choices=sorted(TOPOLOGIES), default="n4c8")
    parser.add_argument("--install", action="store_true", help="install the project in it first")
    parser.add_argument("--command", default="true", help="for run: a shell command")
    arguments = parser.parse_args()
    try:
        if arguments.verb == "build":
            print(image(arguments.release).folder)
            return 0
        with Machine(arguments.release, arguments.topology) as guest:
            if arguments.install:
                install(guest)
            words = ["guest", arguments.command] if arguments.verb == "run" else ["-t", "guest"]
            return subprocess.run([*guest._ssh(), *words], check=False).returncode
    except GuestError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
