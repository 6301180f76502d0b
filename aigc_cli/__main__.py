"""Makes ``python -m aigc_cli`` the same as ``aigc``."""

import sys

from aigc_cli.cli import main

if __name__ == "__main__":
    sys.exit(main())
