"""`python -m bidiffsr_arch.cli`, for launchers such as torchrun that start modules."""

import sys

from bidiffsr_arch.cli import main

sys.exit(main())
