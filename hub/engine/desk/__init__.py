"""What the services ask: the asynchronous side of each resource, over scripts and what is alive."""
