"""`python -m tenure_cli`."""

from tenure_cli.main import main

main()
