"""`python -m leancnn`, and `torchrun -m leancnn`: the command line."""

import sys

from leancnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
