"""The engine: an HTTP server for one model inside a share of one device."""
