"""Files over HTTP: uploads on their way to the store, their names and types, ranges and conditions of downloads."""
