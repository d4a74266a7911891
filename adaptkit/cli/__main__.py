"""`python -m adaptkit.cli` is `python -m adaptkit`."""

from adaptkit.cli.app import main

if __name__ == "__main__":
    main()
