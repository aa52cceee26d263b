"""Jobs: work in the background that outlives its request, and the server that began it."""
