#!/usr/bin/env python3
"""Entry point without any installation: `python3 tests/cluster/localcluster_cli.py up`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from localcluster.cli import main

if __name__ == "__main__":
    sys.exit(main())
