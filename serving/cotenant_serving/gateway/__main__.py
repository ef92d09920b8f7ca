"""`python -m cotenant_serving.gateway`."""

import sys

from cotenant_serving.gateway.supervisor import main

sys.exit(main())
