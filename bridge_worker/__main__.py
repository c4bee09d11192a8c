"""``python -m bridge_worker``: the command ``omni-bridge``."""

from bridge_worker.cli import main

main()
