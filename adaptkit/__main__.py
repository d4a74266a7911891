"""`python -m adaptkit`, and `torchrun -m adaptkit` for several processes."""

from adaptkit.cli.app import main

if __name__ == "__main__":
    main()
