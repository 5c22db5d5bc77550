"""Transaction scripts: plain functions over a transaction, each one decision with all that belongs to it. They know
no loop, no session, no clock.
"""
