import shutil
import socket
import ssl
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import httpcore
import pytest

from ops_pipeline.clients.guard import Refused, addresses_of, guarded_client, is_public
from ops_pipeline.clients.rss import RssFeeds
from ops_pipeline.domain.values import Feed, FeedStatus
from ops_pipeline_tests.clients.rss_server import NOW, FeedServer, Page, a_feed, following, serving

NOT_PUBLIC = "the host is not in the public internet"


@pytest.fixture
def server() -> Iterator[FeedServer]:
    with serving() as running:
        yield running


def reason_of(source: RssFeeds) -> str:
    (outcome,) = source.fetch_news(NOW, NOW, {}).feeds
    assert outcome.status is FeedStatus.FAILED
    return outcome.reason


def strict(url: str) -> RssFeeds:
    return RssFeeds([Feed("a", url)], lambda: NOW, user_agent="ops-pipeline/1")


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_a_public_address_is_let_through(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "255.255.255.255", "240.0.0.1", "224.0.0.1", "192.0.2.1", "198.18.0.1",  # noqa: S104
        "::", "::1", "::7f00:1", "fe80::1", "fe80::1%lo", "fec0::1", "fd00::1", "ff0e::1",
        "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::ffff:224.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:1::", "2001:db8::1",
    ],
)  # fmt: skip
def test_an_address_of_no_public_network_is_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0x7f.1",
        "0.0.0.0", "[64:ff9b::7f00:1]",  # noqa: S104
    ],
)  # fmt: skip
def test_this_machine_is_not_asked_by_whatever_name(server: FeedServer, host: str) -> None:
    server.feed("/a", a_feed())
    assert reason_of(strict(f"http://{host}:{server.server_port}/a")) == NOT_PUBLIC
    assert server.requests == []


def test_the_address_of_cloud_metadata_is_not_asked() -> None:
    assert reason_of(strict("http://169.254.169.254/latest/meta-data/")) == NOT_PUBLIC


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://news.example/a", "gopher://news.example/", "/etc/passwd", ""],
)
def test_only_the_web_is_asked_also_after_a_redirect(server: FeedServer, url: str) -> None:
    assert reason_of(strict(url)) == "only http and https are requested"
    if "://" in url:
        moved = server.feed("/a", Page(status=301, headers={"Location": url}))
        assert reason_of(following(moved)) == "only http and https are requested"


def test_a_url_with_a_password_is_not_asked_and_not_told(server: FeedServer) -> None:
    server.feed("/a", a_feed())
    url = server.url("/a").replace("http://", "http://user:secret@")
    reason = reason_of(following(Feed("a", url)))
    assert reason == "a URL with a user name or a password is not requested"
    assert server.requests == []


@pytest.mark.parametrize(
    "url",
    ["http://[", "http://a:b:c/", "http://\x00/", "http://xn--/", "http://news.example:99999/"],
)
def test_a_url_that_cannot_be_used_is_a_failure(url: str) -> None:
    assert reason_of(strict(url))


def test_a_name_that_is_not_known_is_a_failure() -> None:
    assert reason_of(strict("http://news.invalid/?key=secret")) == "the host name is not known"
    assert reason_of(strict(f"http://{'a' * 64}.example/")) == "the host name is not known"


def test_nobody_listening_is_a_failure() -> None:
    # Bound, so that nobody else on this machine is given the port, and deaf.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/a"
        assert "refused" in reason_of(following(Feed("a", url)))


def get(url: str, addresses: list[str], tls: ssl.SSLContext, *, allows_private: bool) -> int:
    looked_up = list[str]()

    def resolve(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return addresses

    until = time.monotonic() + 5
    with guarded_client(until, tls, allows_private=allows_private, resolve=resolve) as client:
        status = client.get(url).status_code
    assert len(looked_up) == 1
    return status


def test_the_connection_goes_to_the_address_that_was_checked(server: FeedServer) -> None:
    server.feed("/a", a_feed())
    url = f"http://news.invalid:{server.server_port}/a"
    tls = ssl.create_default_context()
    assert get(url, ["127.0.0.1"], tls, allows_private=True) == 200
    assert server.requests[0][1]["Host"] == f"news.invalid:{server.server_port}"


def test_one_private_address_among_public_ones_is_enough_to_refuse(server: FeedServer) -> None:
    url = f"http://news.invalid:{server.server_port}/a"
    with pytest.raises(Refused, match=NOT_PUBLIC):
        get(url, ["8.8.8.8", "127.0.0.1"], ssl.create_default_context(), allows_private=False)
    assert server.requests == []


def test_the_next_address_is_tried_where_one_does_not_answer(server: FeedServer) -> None:
    server.feed("/a", a_feed())
    url = f"http://news.invalid:{server.server_port}/a"
    tls = ssl.create_default_context()
    assert get(url, ["127.0.0.99", "127.0.0.1"], tls, allows_private=True) == 200


def test_a_redirect_passes_the_same_guard(server: FeedServer) -> None:
    server.feed("/secret", a_feed())
    server.feed("/a", Page(status=301, headers={"Location": "http://10.0.0.1/secret"}))
    answers = iter([["127.0.0.1"], ["8.8.8.8", "169.254.169.254"]])
    until = time.monotonic() + 5
    # The first host is let through by a name of this machine only because the rule is off for it.
    with guarded_client(
        until, ssl.create_default_context(), allows_private=True, resolve=lambda *_: next(answers)
    ) as client:
        response = client.get(f"http://news.invalid:{server.server_port}/a")
        moved = response.next_request
    assert moved is not None
    with (
        guarded_client(
            until, ssl.create_default_context(), resolve=lambda *_: next(answers)
        ) as client,
        pytest.raises(Refused, match=NOT_PUBLIC),
    ):
        client.send(moved)
    assert [path for path, _ in server.requests] == ["/a"]


def test_this_machine_is_asked_without_the_proxy(
    server: FeedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url(""))
        monkeypatch.setenv("ALL_PROXY", proxy.url(""))
        told = following(server.feed("/a", a_feed())).fetch_news(NOW, NOW, {})
        assert len(told.entries) == 2
        assert proxy.requests == []


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_an_outside_host_is_asked_by_the_proxy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as proxy:
        monkeypatch.setenv(name, proxy.url("").replace("http://", "http://us:pa%20ss@"))
        address = "http://news.invalid/a"
        proxy.feed(address, a_feed())
        told = strict(address).fetch_news(NOW, NOW, {})
        assert len(told.entries) == 2
        ((path, headers),) = proxy.requests
    assert path == address
    assert headers["Host"] == "news.invalid"
    assert headers["Proxy-Authorization"] == f"Basic {b64encode(b'us:pa ss').decode()}"


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1", "169.254.169.254", "[::1]", "[fd00::1]", "2130706433", "intranet", "wiki.corp",
        "metadata.google.internal", "printer.local", "a.localhost.",
    ],
)  # fmt: skip
def test_the_proxy_is_not_asked_for_a_private_host(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url(""))
        assert reason_of(strict(f"http://{host}/a")) == NOT_PUBLIC
        assert proxy.requests == []


def test_a_host_that_needs_no_proxy_is_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "other.example,news.invalid")
    assert reason_of(strict("http://news.invalid/a")) == "the host name is not known"


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "http://us:s3cret@127.0.0.1:9"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_is_a_failure_without_its_address(
    proxy: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", proxy)
    reason = reason_of(strict(f"{scheme}://news.invalid/a"))
    assert reason == "the proxy does not answer, or refuses the host"


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:9", "127.0.0.1:9", "http://", "no proxy", "x://y:z"]
)
def test_a_proxy_that_cannot_be_used_is_a_failure(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    assert "proxy" in reason_of(strict("http://news.invalid/a"))


def test_the_addresses_of_a_host_are_told_once_each() -> None:
    found = addresses_of("127.0.0.1", 80)
    assert found == ["127.0.0.1"]
    with pytest.raises(httpcore.ConnectError):
        addresses_of("news.invalid", 80)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for news.invalid that nobody signed, with its key in the same file."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("no openssl to make a certificate with")
    file = tmp_path / "certificate.pem"
    options = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "30000",
        "-subj",
        "/CN=news.invalid",
    ]
    names = ["-addext", "subjectAltName=DNS:news.invalid"]
    made = [openssl, *options, *names, "-keyout", str(file), "-out", str(tmp_path / "public.pem")]
    subprocess.run(made, check=True, capture_output=True)
    with file.open("a") as whole:
        whole.write((tmp_path / "public.pem").read_text())
    return file


@pytest.fixture
def https(server: FeedServer, certificate: Path) -> FeedServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.feed("/a", a_feed())
    return server


def test_tls_verifies_the_name_and_not_the_address(https: FeedServer, certificate: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate.with_name("public.pem")))
    port = https.server_port
    right, wrong = (f"https://{host}:{port}/a" for host in ("news.invalid", "other.invalid"))
    assert get(right, ["127.0.0.1"], trusting, allows_private=True) == 200
    with pytest.raises(httpcore.ConnectError, match="Hostname mismatch"):
        get(wrong, ["127.0.0.1"], trusting, allows_private=True)
    assert len(https.requests) == 1


def test_a_certificate_that_nobody_signed_is_a_failure(https: FeedServer) -> None:
    url = https.url("/a").replace("http://", "https://")
    assert "certificate verify failed" in reason_of(following(Feed("a", url)))
    assert https.requests == []
