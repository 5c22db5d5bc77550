"""What is alive in memory: seats and dispatch, sessions and their reports, the bus, the sweep. It carries out
scripts and follows what was committed.
"""
