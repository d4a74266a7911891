"""Addresses to listen on: bind them early, tell loopback from the network, write them as a URL."""

from __future__ import annotations

import errno
import ipaddress
import socket

from adaptkit.errors import ConfigError


def listen(host: str, port: int) -> socket.socket:
    """Bind the server's socket at once, so that nobody can take the port while models load.

    Raises: ConfigError for a port that is taken or an address that is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Connections inherit it; else each answer's second packet waits for the first one's receipt, 40 ms.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        where = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            fix = f"--port {port + 1}, or end it"
            raise ConfigError("something else listens there", where=where, fix=fix) from None
        what = f"cannot listen: {error.strerror or error}"
        raise ConfigError(what, where=where, fix="--host 127.0.0.1 --port 8000") from None
    except OverflowError:
        bound.close()
        raise ConfigError("no such port", where=str(port), fix="choose one from 1024 to 65535") from None
    return bound


def is_loopback(host: str) -> bool:
    """Say whether only this machine can connect to an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reached_at(host: str) -> str:
    """Where this machine reaches what listens on `host`: every address is also loopback's."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def free_port() -> int:
    """Find a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def http_url(host: str, port: int) -> str:
    """Write `http://host:port`, with brackets around an IPv6 address."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"
