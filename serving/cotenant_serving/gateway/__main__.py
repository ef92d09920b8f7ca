"""`python -m cotenant_serving.gateway`."""

import sys

from cotenant_serving.gateway.server import main

sys.exit(main())
