"""`python -m cotenant_operator` is the `cotenant` command."""

import sys

from cotenant_operator.cli import main

sys.exit(main())
