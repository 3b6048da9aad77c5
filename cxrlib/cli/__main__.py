"""``python -m cxrlib.cli``: the same as ``cxr``."""

from cxrlib.cli.main import main

if __name__ == "__main__":
    main()
