"""Whose word is taken on where a request came from."""
from __future__ import annotations

import logging

import pytest
from starlette.testclient import TestClient

from machikoba.errors import OptionError
from machikoba.store import people
from machikoba.web.app import create_app
from machikoba.web.proxy import BehindProxy, addresses

PROXY, PASSWORD = "10.0.0.2", "umi-yama-kawa"


@pytest.fixture
def behind(shop):
    """A client at an address of its own; the proxy is at PROXY."""
    app = BehindProxy(create_app(shop, ["127.0.0.1", "localhost"], ["office.example"]), addresses([PROXY]))

    def at(address):
        return TestClient(app, base_url="http://office.example", client=(address, 50_000), raise_server_exceptions=False)

    return at


@pytest.fixture
def aoki(shop):
    with shop.database.writing() as session:
        token = people.first_owner(session, "Minato Inn")
        people.accept(session, token, "aoki@example.jp", "Aoki", PASSWORD, "console")
    return {"mail": "aoki@example.jp", "password": PASSWORD}


def sign_in(client, who, **headers):
    return client.post("/v1/sign-ins", json=who, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_the_cookie_is_secure_when_the_proxy_says_https(behind, aoki):
    said = sign_in(behind(PROXY), aoki, X_Forwarded_Proto="https", X_Forwarded_For="203.0.113.7")
    assert said.status_code == 201
    assert "secure" in said.headers["set-cookie"].lower()
    plain = sign_in(behind(PROXY), aoki, X_Forwarded_Proto="http", X_Forwarded_For="203.0.113.7")
    assert "secure" not in plain.headers["set-cookie"].lower()


def test_nobody_else_can_say_https(behind, aoki):
    said = sign_in(behind("203.0.113.7"), aoki, X_Forwarded_Proto="https")
    assert said.status_code == 201
    assert "secure" not in said.headers["set-cookie"].lower()


def test_who_forges_its_address_is_throttled_all_the_same(behind):
    client = behind("203.0.113.7")
    for i in range(people.MOST_FAILURES["address"]):
        assert sign_in(client, {"mail": f"{i}@example.jp", "password": "x"}, X_Forwarded_For=f"198.51.100.{i}").status_code == 401
    assert sign_in(client, {"mail": "a@example.jp", "password": "x"}, X_Forwarded_For="198.51.100.200").status_code == 429


def test_behind_the_proxy_each_address_has_its_own_throttle(behind):
    client = behind(PROXY)
    for i in range(people.MOST_FAILURES["address"]):
        # what the client itself had written stands before what the proxy added
        assert sign_in(client, {"mail": f"{i}@example.jp", "password": "x"},
                       X_Forwarded_For=f"198.51.100.{i}, 203.0.113.7").status_code == 401
    assert sign_in(client, {"mail": "a@example.jp", "password": "x"}, X_Forwarded_For="203.0.113.7").status_code == 429
    assert sign_in(client, {"mail": "a@example.jp", "password": "x"}, X_Forwarded_For="203.0.113.8").status_code == 401


def test_a_proxy_that_is_not_named_is_told_of_once(behind, caplog):
    client = behind("172.18.0.3")
    with caplog.at_level(logging.WARNING, "machikoba.web"):
        for _ in range(3):
            client.get("/healthz", headers={"X-Forwarded-For": "203.0.113.7"})
    assert caplog.text.count("--behind-proxy 172.18.0.3") == 1


def test_a_proxy_that_hides_the_name_is_told_what_to_do(behind):
    for host in ("127.0.0.1:8600", "localhost", "machikoba"):
        said = behind(PROXY).get("/healthz", headers={"Host": host, "X-Forwarded-For": "203.0.113.7"})
        assert said.status_code == 400
        assert "Host header" in said.json()["error"]["next"]
    assert behind(PROXY).get("/healthz", headers={"X-Forwarded-For": "203.0.113.7"}).status_code == 200
    assert behind("127.0.0.1").get("/healthz", headers={"Host": "127.0.0.1:8600"}).status_code == 200


@pytest.mark.parametrize("mark", ["X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Via", "X-Real-IP"])
def test_through_a_proxy_on_this_machine_nobody_reads_the_measures(shop, mark):
    client = TestClient(BehindProxy(create_app(shop), []), base_url="http://127.0.0.1", client=("127.0.0.1", 1))
    assert client.get("/metrics").status_code == 200
    assert client.get("/metrics", headers={mark: "x"}).status_code == 404


@pytest.mark.parametrize("given", ["*", "10.0.0.0/8", "proxy", "", "127.0.0.1,10.0.0.2"])
def test_only_one_address_at_a_time_is_believed(given):
    with pytest.raises(OptionError, match="behind-proxy"):
        addresses([given])


def test_addresses_as_the_system_may_report_them():
    assert addresses(["127.0.0.1", " ::1 "]) == ["127.0.0.1", "::ffff:127.0.0.1", "::1"]
