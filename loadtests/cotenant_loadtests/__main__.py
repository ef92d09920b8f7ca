import sys

from cotenant_loadtests.cli import main

if __name__ == "__main__":
    sys.exit(main())
