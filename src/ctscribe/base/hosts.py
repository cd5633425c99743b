"""Which addresses are this machine's own."""

from ipaddress import ip_address


def is_this_machine(host: str) -> bool:
    """Whether a name or an address leads to this machine and to no other, whatever a DNS says."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
