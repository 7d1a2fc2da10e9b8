"""``python -m airlora`` is the command ``airlora``."""

from airlora.cli import main

main()
