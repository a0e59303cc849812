"""What does `python -m khlone` do? The same as the command, for a Python whose scripts are not on the PATH."""

from khlone.cli import main

if __name__ == "__main__":
    main()
