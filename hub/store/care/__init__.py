"""Keeping a store whole: the audit, backups, restore, compaction, and the guard against writing into damage."""
