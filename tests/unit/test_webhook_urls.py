"""Which addresses webhooks may have, and which IP addresses are public."""

import pytest

from services.notification.webhooks.domain import InvalidWebhookUrl, is_public, require_url

PUBLIC = "93.184.215.14"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com/hooks/1?token=a%20b&c=d",
        "https://example.com?a=b",
        "HTTPS://Example.COM:443/",
        "https://xn--bcher-kva.example/",
        f"https://{PUBLIC}/",
        "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:443/",
    ],
)
def test_events_are_posted_to_public_hosts_over_https(url: str) -> None:
    require_url(url, public=True)
    require_url(url, public=False)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://example.com/#fragment",
        "https://example.com\\@127.0.0.1/",
        "https://example.com/a b",
        "https://example.com/\r\nHost: other",
        "https://example.com\n",
        "https://bücher.example/",
        "https://a.localho\u017ft/",
        "https://\u212aelvin.example/",
        "https://example.com/\u0131",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:/",
        "https://example..com/",
        "https://-example.com/",
        f"https://{'a' * 64}.com/",
        f"https://{'a.' * 130}com/",
        "https://%65xample.com/",
        "https://example.com/%zz",
        "https://127.1/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://2130706433/",
        "https://0177.0.0.1/",
        "https://256.256.256.256/",
        "https://[::1/",
        "https://[v1.a]/",
        "https://[fe80::1%eth0]/",
        "https://[93.184.215.14]/",
    ],
)
def test_what_is_no_http_url_is_refused_everywhere(url: str) -> None:
    for public in (True, False):
        with pytest.raises(InvalidWebhookUrl):
            require_url(url, public=public)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://example.com:80/",
        "https://example.com:25/",
        "https://example.com:8443/",
        "https://payment:50051/",
        "https://localhost/",
        "https://db.localhost/",
        "https://printer.local/",
        "https://metadata.google.internal/computeMetadata/v1/",
        "https://payment.drawbridge.svc.cluster.local/",
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fd00:ec2::254]/",
    ],
)
def test_what_the_internet_cannot_reach_is_refused_unless_any_target_will_do(url: str) -> None:
    with pytest.raises(InvalidWebhookUrl):
        require_url(url, public=True)
    require_url(url, public=False)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:0:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:a9fe:a9fe::1",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%1",
        "2606:2800:21f:cb07:6820:80da:af6b:8b2c%1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_an_address_of_no_single_host_on_the_internet_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        PUBLIC,
        "172.32.0.1",
        "2606:2800:21f:cb07:6820:80da:af6b:8b2c",
        f"::ffff:{PUBLIC}",
        f"64:ff9b::{PUBLIC}",
        "2002:5db8:d70e::1",
    ],
)
def test_an_address_on_the_internet_is_public_whatever_it_is_wrapped_in(address: str) -> None:
    assert is_public(address)
