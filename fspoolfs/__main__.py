"""`python -m fspoolfs`: the same as the command."""

import sys

from fspoolfs.cli import main

sys.exit(main())
