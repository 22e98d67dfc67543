"""HTTP to addresses that strangers chose: public hosts only, in time, and of bounded size.

Where the environment names a proxy, the proxy looks the host up and connects. A host that this
machine knows is checked before; of one that only the proxy knows, its name alone.
"""

import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

import httpcore
import httpx

from ops_pipeline.environment import proxy_of

CONNECT_SECONDS, READ_SECONDS = 5.0, 10.0
MAX_BODY_BYTES = 5_000_000
MAX_HOPS = 5
REDIRECTS = (301, 302, 303, 307, 308)
NOT_PUBLIC = "the host is not in the public internet"
BAD_PROXY = "the environment's proxy is no http or https address"
# Names that are looked up in a private network only (RFC 6761, 6762, 8375, and ICANN's .internal).
LOCAL_DOMAINS = (".local", ".localhost", ".internal", ".home.arpa", ".lan", ".intranet", ".corp")
GZIP_WINDOW = 31  # what zlib calls a window of 15 bits inside a gzip header
GZIP_MAGIC = b"\x1f\x8b\x08"
MAX_MEMBERS = 1_000
_NAT64 = IPv6Network("64:ff9b::/96")

Resolve = Callable[[str, int], list[str]]


class Refused(Exception):
    """A request or an answer that is not let through; the message is one line without secrets."""


def is_public(address: str) -> bool:
    """Whether an IP address lies in the public internet, also where it wraps an IPv4 address."""
    ip = _unwrapped(ip_address(address))
    if isinstance(ip, IPv6Address) and (ip.is_reserved or ip.is_site_local or ip.sixtofour):
        return False
    return ip.is_global and not ip.is_multicast


def _unwrapped(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(ip, IPv6Address):
        if ip in _NAT64:
            return IPv4Address(int(ip) & 0xFFFF_FFFF)
        return ip.ipv4_mapped or ip
    return ip


def addresses_of(host: str, port: int) -> list[str]:
    """Every address that a host name has now, in the order in which to try them.

    Raises:
        httpcore.ConnectError: the name is not known.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError("the host name is not known") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def guarded_client(
    until: float,
    tls: ssl.SSLContext,
    *,
    allows_private: bool = False,
    resolve: Resolve = addresses_of,
) -> httpx.Client:
    """A client for one fetch that ends when `time.monotonic()` is `until`."""
    network = _GuardedNetwork(until, resolve, allows_private=allows_private)
    return httpx.Client(
        transport=_GuardedTransport(network, tls),
        timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        headers={"Accept-Encoding": "gzip"},
        trust_env=False,
    )


def open_response(
    client: httpx.Client, request: httpx.Request, check: Callable[[httpx.URL], None]
) -> httpx.Response:
    """The answer to a request after redirects; its body is still to be read.

    `check` may raise for a URL; it sees each one before it is requested.

    Raises:
        Refused: a URL that must not be requested, or too many redirects.
    """
    for _ in range(1 + MAX_HOPS):
        check(request.url)
        response = client.send(request, stream=True)
        if response.status_code not in REDIRECTS or response.next_request is None:
            return response
        response.close()
        request = response.next_request
    raise Refused(f"more than {MAX_HOPS} redirects")


def read_body(response: httpx.Response, limit: int = MAX_BODY_BYTES) -> bytes:
    """Return the decoded body, never more than `limit` bytes of it, sent or decoded.

    A body that begins like gzip is unpacked even where no header declares it.

    Raises:
        Refused: the body is larger, cut short, broken, or in an encoding that nobody asked for.
    """
    encoding = response.headers.get("content-encoding", "").strip().lower() or "identity"
    if encoding.removeprefix("x-") not in ("gzip", "deflate", "identity"):
        raise Refused("the answer has an unknown encoding")
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if max(len(body), response.num_bytes_downloaded) > limit:
            raise Refused(_too_large(limit))
    if encoding == "deflate":
        return _unpacked(bytes(body), "deflate", _deflate_window(body), limit)
    if encoding != "identity" or body.startswith(GZIP_MAGIC):
        return _unpacked(bytes(body), "gzip", GZIP_WINDOW, limit)
    return bytes(body)


def _unpacked(packed: bytes, name: str, window: int, limit: int) -> bytes:
    """Return the content of all members: a gzip body may be several, one after another."""
    content = bytearray()
    for _ in range(MAX_MEMBERS):
        member = zlib.decompressobj(window)
        try:
            content += member.decompress(packed, limit + 1 - len(content))
        except zlib.error as error:
            raise Refused(f"the answer is no {name}, though it says so") from error
        if len(content) > limit:
            raise Refused(_too_large(limit))
        if not member.eof:
            raise Refused("the answer is cut short")
        packed = member.unused_data.lstrip(b"\0")  # gzip may be padded with zeros
        if not packed or name == "deflate":
            return bytes(content)
    raise Refused(f"the answer has more than {MAX_MEMBERS} gzip members")


def _deflate_window(body: bytearray) -> int:
    """Return zlib's window; some servers send raw deflate."""
    has_header = len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0
    return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS


def _too_large(limit: int) -> str:
    return f"the answer has more than {limit / 1e6:g} MB"


def _require_web(url: httpx.URL) -> None:
    if url.scheme not in ("http", "https") or not url.host:
        raise Refused("only http and https are requested")
    if url.userinfo:
        raise Refused("a URL with a user name or a password is not requested")


# httpx.HTTPTransport has no way to set the network backend of the pool that it wraps, and reaching
# into it would bind us to its insides; the pool itself takes one, and needs only this much around.
class _GuardedTransport(httpx.BaseTransport):
    """What httpx sends its requests through."""

    def __init__(self, network: "_GuardedNetwork", tls: ssl.SSLContext) -> None:
        self._network, self._tls = network, tls
        self._pools = ExitStack()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        _require_web(request.url)
        url, proxy = request.url, proxy_of(str(request.url))
        try:
            return self._answer(request, self._pools.enter_context(self._pool(url, proxy)))
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.ProxyError) as error:
            if proxy is None:
                raise
            raise Refused("the proxy does not answer, or refuses the host") from error

    def _pool(self, url: httpx.URL, proxy: str | None) -> httpcore.ConnectionPool:
        if proxy is None:
            return httpcore.ConnectionPool(ssl_context=self._tls, network_backend=self._network)
        try:
            through = httpx.Proxy(proxy)
        except (ValueError, httpx.InvalidURL):
            raise Refused(BAD_PROXY) from None
        if through.url.scheme not in ("http", "https") or not through.url.host:
            raise Refused(BAD_PROXY)
        self._network.require_public(url.host, url.port or 443)
        return httpcore.HTTPProxy(
            str(through.url),
            proxy_auth=through.raw_auth,
            ssl_context=self._tls,
            proxy_ssl_context=self._tls if through.url.scheme == "https" else None,
            network_backend=self._network.unguarded(),
        )

    def _answer(self, request: httpx.Request, pool: httpcore.ConnectionPool) -> httpx.Response:
        url = request.url
        answer = pool.handle_request(
            httpcore.Request(
                request.method,
                httpcore.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))

    def close(self) -> None:
        self._pools.close()


class _Body(httpx.SyncByteStream):
    """A body as it comes in."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


class _GuardedNetwork(httpcore.SyncBackend):
    """Connects to the very address that was checked, so that a second lookup cannot differ."""

    def __init__(self, until: float, resolve: Resolve, *, allows_private: bool) -> None:
        self._until = until
        self._resolve = resolve
        self._allows_private = allows_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError("the host has no address")
        for address in self._checked(host, port):
            seconds = _within(timeout, self._until)
            try:
                stream = super().connect_tcp(address, port, seconds, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _TimedStream(stream, self._until)
        raise failure

    def unguarded(self) -> "_GuardedNetwork":
        """Return the same in time, for the proxy: the operator chose its address."""
        return _GuardedNetwork(self._until, addresses_of, allows_private=True)

    def require_public(self, host: str, port: int) -> None:
        """Refuse a host that lies in a private network, as far as this machine can tell.

        Raises:
            Refused: it does, or has a name that means nothing in the public internet.
        """
        try:
            self._checked(host, port)
        except httpcore.ConnectError:
            is_local = "." not in host.rstrip(".") or host.rstrip(".").endswith(LOCAL_DOMAINS)
            if is_local and not self._allows_private:
                raise Refused(NOT_PUBLIC) from None

    def _checked(self, host: str, port: int) -> list[str]:
        addresses = self._resolve(host, port)
        if not self._allows_private and not all(map(is_public, addresses)):
            raise Refused(NOT_PUBLIC)
        return addresses


class _TimedStream(httpcore.NetworkStream):
    """A connection that ends on time even where single bytes keep coming."""

    def __init__(self, stream: httpcore.NetworkStream, until: float) -> None:
        self._stream = stream
        self._until = until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _within(timeout, self._until))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _within(timeout, self._until))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        seconds = _within(timeout, self._until)
        stream = self._stream.start_tls(ssl_context, server_hostname, seconds)
        return _TimedStream(stream, self._until)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _within(seconds: float | None, until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time is over")
    return left if seconds is None else min(seconds, left)
