"""Exports: a user takes along what is theirs, in files that other programs open."""
