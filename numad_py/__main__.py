"""``python -m numad_py``."""

import sys

from numad_py.cli import main

if __name__ == "__main__":
    sys.exit(main())
