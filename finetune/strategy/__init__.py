"""Which fine-tuning? Examine the data, repeat runs, compare them, choose among them by measurement."""
