import json
import re
from unittest.mock import patch

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from rsvl_data.downloading import web_address
from rsvl_data.downloading.web_address import NotFetched, check_url


def test_urls_with_official_fixture(shared):
    """Judged by their form alone."""
    folder = shared / "fixtures" / "bad"
    files = json.loads((folder / "expected.json").read_text())["files"]
    cases = {case["case"]: case for file in files if file["file"] == "urls/urls.csv" for case in file["rows"]}
    seen: set[str] = set()
    for row in map(json.loads, (folder / "urls" / "urls.jsonl").read_text().splitlines()):
        case = cases[row["case"]]
        outcome, reason, url = "accept", None, ""
        try:
            url = check_url(row["url"])
            if url in seen and "duplicate_of" not in case:
                outcome, reason = "reject", "duplicate_url"
        except NotFetched as refusal:
            outcome, reason = "reject", refusal.reason
            assert case.get("must_not_log", "\0") not in str(refusal)
        seen.add(url)
        wanted = {case["outcome"], *case.get("also_ok", [])}
        assert outcome in wanted or (outcome == "accept" and "repair" in wanted), row["case"]
        assert outcome == "accept" or reason in [case["reason"], *case.get("also_ok_reasons", [])], (row["case"], reason)
        assert outcome == "reject" or url == case.get("equivalent", url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1/", "private_address"),
        ("http://2130706433/", "private_address"),
        ("http://0x7f.1/", "private_address"),
        ("http://0177.0.0.1/", "private_address"),
        ("http://127.1./", "private_address"),
        ("http://[::ffff:10.0.0.1]/", "private_address"),
        ("http://[64:ff9b::a9fe:a9fe]/", "private_address"),
        ("http://[2002:7f00:1::]/", "private_address"),
        ("http://[fd00:ec2::254]/", "private_address"),
        ("http://[fec0::1]/", "private_address"),
        ("http://100.100.100.200/", "private_address"),
        ("http://168.63.129.16/", "private_address"),
        ("http://192.0.0.192/", "private_address"),
        ("http://224.0.0.1/", "private_address"),
        ("http://240.0.0.1/", "private_address"),
        ("http://LOCALHOST./", "private_address"),
        ("http://metadata.google.internal/", "private_address"),
        ("http://１２７.０.０.１/", "private_address"),
        ("http://1.2.3.4.5/", "bad_url"),
        ("http://256.1.1.1/", "bad_url"),
        ("http://%31%32%37.0.0.1/", "bad_url"),
        ("http://[fe80::1%25eth0]/", "bad_url"),
        ("http://a..b/", "bad_url"),
        ("http://images.example.org@10.0.0.1/", "userinfo"),
        ("http://10.0.0.1\\@images.example.org/", "bad_url"),
        ("http://images.example.org:25/", "port"),
        ("ftp://images.example.org/", "scheme"),
        ("images.example.org/x.jpg", "bad_url"),
        ("http://images.example.org/" + "a" * 3000, "bad_url"),
    ],
)
def test_refused_by_form(url, reason):
    with pytest.raises(NotFetched) as refusal:
        check_url(url)
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("url", "same"),
    [
        (" HTTPS://Images.Example.ORG.:443/a/../b c.jpg?q=ü#x ", "https://images.example.org/b%20c.jpg?q=%C3%BC"),
        ("http://bücher.example/x", "http://xn--bcher-kva.example/x"),
        ("http://8.8.8.8/x", "http://8.8.8.8/x"),
        ("http://[2606:4700::1]/x", "http://[2606:4700::1]/x"),
        ("http://[64:ff9b::808:808]/x", "http://[64:ff9b::808:808]/x"),
        ("http://my_host.example.org:8080/x%2Fy", "http://my_host.example.org:8080/x%2Fy"),
    ],
)
def test_spelled_in_one_way(url, same):
    assert check_url(url) == same and check_url(same) == same


_PIECES = [*'abZ09._~-/:%?&= +@"[]()', "//", "/.", "/..", "a/../b", "a/./b", "é", "%2e", "%41", "#top"]


@settings(max_examples=400)
@given(
    host=st.sampled_from(["images.example.org", "A.Example.org.", "93.184.216.35", "[2606:4700:0::1]", "bücher.example.org"]),
    port=st.sampled_from(["", ":", ":80", ":443", ":8080", ":08080"]),
    scheme=st.sampled_from(["http", "HTTPS"]),
    tail=st.lists(st.sampled_from(_PIECES)).map(lambda pieces: "/" + "".join(pieces)),
)
@example(host="images.example.org", port=":8080", scheme="http", tail="/a/../b")
def test_one_spelling_for_httpx_for_aiohttp_and_for_the_next_judgement(host, port, scheme, tail):
    try:
        url = check_url(f"{scheme}://{host}{port}{tail}")
    except NotFetched:
        return
    with patch.object(web_address, "_PLAIN_TAIL", re.compile("(?!)")):
        assert check_url(f"{scheme}://{host}{port}{tail}") == url == check_url(url)
    assert check_url(url) == url
    asked, read = URL(url, encoded=True), httpx.URL(url)
    path = "/" + url.partition(asked.raw_authority)[2].removeprefix("/")
    path = path[:-1] if path.find("?") == len(path) - 1 else path  # aiohttp leaves out a "?" with nothing behind it
    assert (asked.scheme, asked.raw_host, asked.raw_path_qs) == (read.scheme, read.raw_host.decode(), path)
    assert asked.explicit_port == read.port and not asked.raw_user and not asked.raw_fragment
