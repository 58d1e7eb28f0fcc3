"""Tests of rigflow. `packages` beside this file is a folder as an installer leaves it: what is in it adds plugins."""

import sys
from pathlib import Path

PACKAGES = str(Path(__file__).with_name("packages"))

if PACKAGES not in sys.path:
    sys.path.append(PACKAGES)
