"""The OpenAPI document of the gateway, and a page that shows it. Pure; true to what the parse modules enforce."""
