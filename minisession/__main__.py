"""``python -m minisession``: the command line, which is in `cli`."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
