"""The options: what does not fit is refused with one line that names the option."""

from pathlib import Path

import pytest

from amplifier_core import BadRequest
from amplifier_sink_otel._options import read_options

NO_ENDPOINTS = (
    "ftp://x",
    "http://x:y",
    "http://[::1",
    "http://a b",
    "http://é",
    "http://u:s3cret@x",
    "http://x?s3cret",
    "http://x#s3cret",
    "http:///x",
)
NO_NAMES = ("Host", "content-type", "a\n", "", "a b", "é")
NO_VALUES = ("s3cret\n", "s3cret ", "\ts3cret", "s3crét", "s3cret" * 3000)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"endpiont": "x"}, "'endpiont': expected one of endpoint, headers, ca, compression, service,"),
        ({"endpoint": 5}, "endpoint: expected `str | null`, got `int`"),
        ({"endpoint": "http://x/" + "y" * 2000}, "endpoint: expected `str` of length <= 1024"),
        *(({"endpoint": each}, "endpoint: expected http://HOST:PORT or https://HOST") for each in NO_ENDPOINTS),
        ({"headers": [("a", "s3cret")]}, "headers: expected `object | null`, got `array`"),
        ({"headers": {str(n): "" for n in range(101)}}, "headers: expected `object` of length <= 100"),
        *(({"headers": {each: "s3cret"}}, "headers: expected names of HTTP, and none that") for each in NO_NAMES),
        *(
            ({"headers": {"a": each}}, "headers.a: expected at most 16384 characters of printable")
            for each in NO_VALUES
        ),
        ({"ca": 5}, "ca: expected `str | null`, got `int`"),
        ({"ca": "/nowhere.pem"}, "ca: expected a PEM file with authorities: [Errno 2]"),
        ({"compression": "br"}, "compression: invalid enum value 'br', expected none or gzip"),
        ({"service": ""}, "service: expected `str` of length >= 1"),
        ({"resource": []}, "resource: expected `object`, got `array`"),
        ({"resource": {"a": None}}, "resource[...]: expected `bool | int | float | str`, got `null`"),
        ({"resource": {"a": 2**63}}, "resource[...]: expected `int` <= 9223372036854775807"),
        ({"content": 1}, "content: expected `bool`, got `int`"),
        ({"queue": 1.5}, "queue: expected `int`, got `float`"),
        ({"queue": True}, "queue: expected `int`, got `bool`"),
        ({"interval": 0}, "interval: expected `float` > 0.0"),
        ({"timeout": float("nan")}, "timeout: expected `float` > 0.0"),
        ({"required": "yes"}, "required: expected `bool`, got `str`"),
        ({"environment": None}, "environment: expected `bool`, got `null`"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options, problem):
    with pytest.raises(BadRequest) as refused:
        read_options(options)
    assert refused.value.message.startswith(f"sinks: otel: {problem}")
    assert "\n" not in refused.value.message
    assert "s3cret" not in refused.value.message


@pytest.mark.parametrize(
    ("endpoint", "where", "url"),
    [
        (None, "http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://x", "http://x", "http://x/v1/traces"),
        ("https://x:1/", "https://x:1", "https://x:1/v1/traces"),
        ("https://x/otlp/", "https://x", "https://x/otlp/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ],
)
def test_an_endpoint_is_read(endpoint, where, url):
    options = read_options({} if endpoint is None else {"endpoint": endpoint})
    assert (options.where, options.url("/v1/traces")) == (where, url)


def test_headers_are_not_shown():
    assert "s3cret" not in repr(read_options({"headers": {"a": "s3cret"}}))


def test_a_file_of_authorities_may_be_a_path(tmp_path):
    trustme = pytest.importorskip("trustme")
    file = Path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(file)
    assert read_options({"ca": file}).ca == str(file)
