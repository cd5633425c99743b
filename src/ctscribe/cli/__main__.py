"""``python -m ctscribe.cli``, for torchrun."""

from ctscribe.cli.app import main

if __name__ == "__main__":
    main()
