"""`python -m etl` loads as `gapscope load` does, for a machine that only runs the ETL step."""

import sys

from etl.command import main

if __name__ == "__main__":
    sys.exit(main())
