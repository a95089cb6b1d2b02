"""Worker processes: a pool that returns results in order, never hangs and never outlives the run."""
