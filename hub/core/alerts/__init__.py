"""Alerts: the rules, what they read, and how one is raised, told and cleared."""
