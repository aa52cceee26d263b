"""Storages: the places of cold files, as SQL defines, checks, fills and lists them."""
