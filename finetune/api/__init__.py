"""The Python API: train, load, advise. ``import finetune`` offers its names; the commands call it too."""
