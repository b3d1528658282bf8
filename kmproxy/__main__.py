"""`python -m kmproxy` is the `kmproxy` command."""

import sys

from kmproxy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
