"""What holds for every test: how the property tests are run."""

import os

from hypothesis import settings

# A deadline for each example measures the machine, not the code. A build has to end the same way
# twice, so there the examples are always the same; at a desk they are new ones each time.
settings.register_profile("eilpost", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("eilpost")
