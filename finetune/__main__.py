"""``python -m finetune`` is the command ``finetune``."""

from finetune.cli.start import main

if __name__ == "__main__":
    main()
