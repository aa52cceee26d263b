"""HTTP routes grouped by area; each parses a request, calls one function below and renders the answer."""
