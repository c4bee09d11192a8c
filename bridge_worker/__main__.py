"""``python -m bridge_worker``: the command ``omni-bridge``."""

from bridge_worker.cli.main import main

main()
