"""Alerts: what a person should look at, and who is told of it."""
