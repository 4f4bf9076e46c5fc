"""`python -m tenantry`: the command line."""

from tenantry.cli import main

if __name__ == "__main__":
    main()
