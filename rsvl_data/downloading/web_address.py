"""Which places of the web a downloader may ask: the form of a URL, and the address a name leads to.

A table of URLs is written by strangers. Whoever runs it must not be made to knock at machines of their own network (a cloud's metadata
service hands out credentials), so only http and https to public unicast addresses pass. Nothing here touches the network.

Easy to get wrong: 2130706433, 0x7f000001, 0177.0.0.1, 127.1, １２７.０.０.１ and [::ffff:127.0.0.1] are all the loopback address;
user@host and a backslash make parsers disagree about the host; a public name may lead to a private address, so the address that a name
gave is judged again where the connection is made (`rsvl_data/downloading/safe_http.py`).
"""

import ipaddress
import re
import socket
from functools import lru_cache
from urllib.parse import urlsplit

_LONGEST_URL = 2048
_OPEN_LOW_PORTS = (80, 443)
_LOCAL_NAMES = ("localhost", "localdomain", "local", "internal", "intranet", "lan", "home.arpa")
_PLAIN_TAIL = re.compile(r"/(?!/|\.)[A-Za-z0-9_~-]*([./][A-Za-z0-9_~-]+)*/?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_CLOUD_METADATA = [  # public by their form; the others (169.254.169.254, 100.100.100.200, fd00:ec2::254) are not
    ipaddress.ip_network(
        "168.63.129.16/32"
    ),  # https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
    ipaddress.ip_network("192.0.0.0/24"),  # Oracle's 192.0.0.192; older Pythons call some of the block global
]
_RELAY_6TO4 = ipaddress.ip_network("192.88.99.0/24")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


class NotFetched(Exception):
    """Why there is no image. `reason` is a short word for counting, the text a sentence for the person who looks.

    again    whether another try may end better
    wait_s   how long the server asks to be left alone
    """

    def __init__(self, reason: str, detail: str, *, again: bool = False, wait_s: float | None = None):
        super().__init__(detail)
        self.reason, self.again, self.wait_s = reason, again, wait_s


def redacted(url: str) -> str:
    """For records and messages: on one line, not endless, without a password."""
    return re.sub(r"//[^/?#]*@", "//***@", "".join(c if c.isprintable() else "?" for c in url))[:300]


def check_url(text: str, *, allow_private: bool = False) -> str:
    """The URL in one spelling (equal strings are one resource), or NotFetched: bad_url, scheme, userinfo, port, private_address.

    Repaired: outer white space, spaces and letters beyond ASCII in the path, international host names, dot segments, the fragment.
    """
    text = text.strip()
    if not text or len(text) > _LONGEST_URL or re.search(r"[\x00-\x1f\x7f\\]|\shttps?:", text):
        raise NotFetched("bad_url", f"{redacted(text)!r} is empty, too long, or holds a line break, a backslash or two URLs")
    scheme, colon, rest = text.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        raise NotFetched("bad_url", f"{redacted(text)!r} does not begin with http:// or https://")
    if scheme.lower() not in ("http", "https"):
        raise NotFetched("scheme", f"{scheme}: is refused; only http and https are fetched")
    match = re.match(r"//([^/?#]+)(.*)", rest, re.DOTALL)
    if match is None:
        raise NotFetched("bad_url", f"{redacted(text)!r} names no host")
    authority, tail = match.groups()
    if "@" in authority:
        raise NotFetched("userinfo", f"{redacted(text)!r} holds a user name or a password")
    try:
        parts = urlsplit(f"//{authority}")
        name, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise NotFetched("bad_url", f"{redacted(text)!r}: {error}") from error
    host = _check_host(name, allow_private)
    if port is not None and port < 1024 and port not in _OPEN_LOW_PORTS:
        raise NotFetched("port", f"{redacted(text)!r} asks port {port}; below 1024 only 80 and 443 are open")
    origin = f"{scheme.lower()}://{host}{'' if port is None else f':{port}'}"
    if port not in (80, 443) and _PLAIN_TAIL.fullmatch(tail):
        return origin + tail  # what httpx would say, sooner
    import httpx  # here, and idna below: most tables do without, and it is a tenth of a second

    try:
        url = httpx.URL(origin + tail.partition("#")[0])
    except httpx.InvalidURL as error:
        raise NotFetched("bad_url", f"{redacted(text)!r}: {error}") from error
    return str(url)


@lru_cache(maxsize=4096)  # a table asks a few hosts for much
def _check_host(name: str, allow_private: bool) -> str:
    """A host as it may stand in a URL: lower case, international names as punycode, addresses in their usual spelling."""
    if ":" in name and "%" not in name:  # a zone (%eth0) makes sense on a local network only
        return f"[{check_address(name, allow_private)}]"
    host = (name if name.isascii() else _punycode(name)).lower().rstrip(".")
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise NotFetched("bad_url", f"host {name[:80]!r} is not a name")
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):  # https://url.spec.whatwg.org/#ends-in-a-number-checker
        try:
            return check_address(socket.inet_ntoa(socket.inet_aton(host)), allow_private)
        except OSError as error:
            raise NotFetched("bad_url", f"host {name!r} is neither a name nor an address") from error
    if not allow_private and any(host == local or host.endswith(f".{local}") for local in _LOCAL_NAMES):
        raise NotFetched("private_address", f"{host} is a name of the local network")
    return host


def _punycode(name: str) -> str:
    import idna

    try:
        return idna.encode(name, uts46=True).decode()
    except idna.IDNAError as error:
        raise NotFetched("bad_url", f"host {name!r} is not a name: {error}") from error


def check_address(address: str, allow_private: bool = False) -> str:
    """The address in its usual spelling, or NotFetched: private_address; bad_url for what is no address."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError as error:
        raise NotFetched("bad_url", f"{address!r} is not an address") from error
    if not allow_private and not is_public(ip):
        raise NotFetched("private_address", f"{address} is not a public address")
    return str(ip)


def is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it is a unicast address of the open internet, looking also at an IPv4 address inside an IPv6 one."""
    if isinstance(ip, ipaddress.IPv4Address):
        special = ip.is_multicast or ip.is_reserved or ip in _RELAY_6TO4 or any(ip in block for block in _CLOUD_METADATA)
        return ip.is_global and not special
    if ip in _NAT64:
        return is_public(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    if ip.sixtofour is not None and not is_public(ip.sixtofour):
        return False
    return ip in _GLOBAL_UNICAST and ip.is_global  # IPv4-mapped addresses and Teredo are neither
