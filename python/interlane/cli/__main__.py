"""`python -m interlane.cli` is `interlane`."""

from interlane.cli import main

if __name__ == "__main__":
    main(prog_name="interlane")
