"""Phases to checkpoints: the loop, the schedule, precision, the run directory."""
