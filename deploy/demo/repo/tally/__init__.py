"""Keeps a book of expenses and says what they come to."""
