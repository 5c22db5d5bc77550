"""Who is told of what: the event log read on, what it asks of people, and the lanes of the sinks."""
