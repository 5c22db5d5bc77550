"""What is done with an assignment: one attempt of each kind, checks, merges, work by hand."""
