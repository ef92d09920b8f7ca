"""The gateway: stateless ASGI processes in front of the engines."""
