"""`python -m cryomamba`: the same as the `cryomamba` command."""

from cryomamba.cli import main

main()
