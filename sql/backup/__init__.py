"""Backups: a copy of the whole database while it is served, and the way back."""
