"""TLS towards the target, for its requests and its metrics alike."""

import ssl


def tls_context(ca_file: str | None, *, verify: bool) -> ssl.SSLContext:
    """Raises OSError where `ca_file`, PEM, cannot be used."""
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
