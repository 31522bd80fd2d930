"""Lets `python -m ita_ag_oase` stand for the command `ita-ag-oase`."""

import sys

from ita_ag_oase.cli import main

if __name__ == "__main__":
    sys.exit(main())
