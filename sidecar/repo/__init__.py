"""Repositories: caches, worktrees, what an agent may push."""
