"""Views: how they are defined, and how the binder puts their queries in the place of their names."""
