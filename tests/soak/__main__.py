"""``python -m tests.soak``: the service in a guest for an hour, amid workers that come and go."""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.guest.fleet import Fleet
from tests.guest.image import GuestError
from tests.guest.workers import Workers
from tests.soak.soak import Soak


def main() -> int:
    """Run it; return 1 where something has grown or went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--guest", default="bookworm-n4c8", help="release-topology, of four nodes")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of a run to be had again"
    )
    arguments = parser.parse_args()
    print(f"{arguments.guest}, {arguments.minutes:g} minutes, --seed {arguments.seed}", flush=True)
    fleet = Fleet()
    try:
        guest = fleet.get(arguments.guest)
        soak = Soak(guest, Workers(guest), random.Random(arguments.seed), _say)  # noqa: S311
        wrong = soak.run(60 * arguments.minutes)
    except GuestError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        fleet.close()
    print("\n".join(wrong) or f"nothing has grown: {len(soak.held)} rounds, {soak.came} workers")
    return 1 if wrong else 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
