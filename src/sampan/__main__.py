"""Lets `python -m sampan` do what the `sampan` command does, where scripts are not on the path."""

import sys

from sampan.cli import main

if __name__ == "__main__":
    sys.exit(main())
