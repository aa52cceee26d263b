"""The HTTP server: Starlette application, routes, authentication, limits, configuration."""
