"""``python -m upkeep``: the command line where no script is installed, as in the image."""

from upkeep.cli import main

main()
