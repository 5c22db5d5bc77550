"""Who does the work: one file an executor."""
