"""Who may change something, from where, and what every answer says to browsers."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from schemas.settings import Gateway as GatewaySettings
from schemas.settings import Settings
from streams.gateway.calls import CALLS
from streams.gateway.doorkeeper import (
    CALLS_AT_ONCE,
    COOKIE,
    TokenTooShort,
    TokenUnusable,
    load_token,
    token_file,
)
from streams.gateway.endpoint import LARGEST_BODY_BYTES
from streams.gateway.guard import allowed_hosts, is_origin_of
from streams.gateway.throttle import Throttle
from tests.streams.gateway.conftest import TOKEN, Door

EVENT = {"user_id": "u", "item_id": "i", "event": "click"}


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# The token


def test_the_token_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path / "new"))
    token = load_token(settings)
    assert len(token) > 40
    assert load_token(settings) == token
    assert stat.S_IMODE(token_file(settings).stat().st_mode) == 0o600
    assert [each.name for each in token_file(settings).parent.iterdir()] == ["gateway.token"]


def test_a_configured_token_is_taken_and_no_file_is_made(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), gateway=GatewaySettings(token="mine" * 4))
    assert load_token(settings) == "mine" * 4
    assert not token_file(settings).exists()


def test_a_configured_token_that_could_be_guessed_is_refused_and_not_repeated(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), gateway=GatewaySettings(token="sesame"))
    with pytest.raises(TokenTooShort) as refused:
        load_token(settings)
    assert "sesame" not in str(refused.value)


def test_a_token_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path))
    token_file(settings).write_text("mine\n")
    token_file(settings).chmod(0o644)
    assert load_token(settings) == "mine"
    assert stat.S_IMODE(token_file(settings).stat().st_mode) == 0o600


def test_an_empty_token_lets_nobody_in(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path))
    token_file(settings).write_text("\n")
    with pytest.raises(TokenUnusable, match="it is empty"):
        load_token(settings)


def test_every_call_that_is_not_a_question_asks_for_the_token(closed_door: Door) -> None:
    free = {"/login", "/logout", "/api/recommendations/{scenario}"}  # the last asks SERVE, and changes nothing
    changing = [call for call in CALLS if call.method != "GET" and call.path not in free]
    assert len(changing) >= 5
    for call in changing:
        path = call.path.replace("{scenario}", "shop").replace("{item_id:path}", "i")
        answer = httpx.request(call.method, closed_door.url + path, json={})
        assert code(answer) == (401, "no-token"), call.path
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("shown", ["Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", "", "Bearer \xff"])
def test_what_is_not_the_token_is_none(closed_door: Door, shown: str) -> None:
    answer = httpx.post(f"{closed_door.url}/api/actions", json={}, headers={"Authorization": shown.encode("latin-1")})
    assert code(answer) == (401, "no-token")
    assert TOKEN not in answer.text


def test_wrong_tokens_lock_nobody_out_who_has_the_right_one(closed_door: Door) -> None:
    """All callers of loopback have one address."""
    for _ in range(CALLS_AT_ONCE + 1):
        assert not closed_door.gateway.doorkeeper.knows("guess")
    assert closed_door.post("/login", json={"token": "guess"}).status_code == 401
    assert closed_door.post("/login", json={"token": TOKEN}).status_code == 200
    assert code(closed_door.post("/api/actions", json={})) == (400, "bad-body")


def test_who_calls_too_often_is_told_when_to_come_again(closed_door: Door) -> None:
    closed_door.gateway.doorkeeper._calls = Throttle(0.1, 2)
    answers = [closed_door.post("/api/actions", json={}) for _ in range(3)]
    assert [each.status_code for each in answers] == [400, 400, 429]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 10


# Sessions


@contextmanager
def signed_in(door: Door) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=door.url) as browser:
        assert browser.post("/login", json={"token": TOKEN}).json()["signed_in"] is True
        yield browser


def test_a_session_begins_with_the_token_and_its_cookie_is_for_no_script_and_no_other_site(closed_door: Door) -> None:
    answer = closed_door.post("/login", json={"token": TOKEN})
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in cookie


def test_a_form_leads_on_or_back_and_never_elsewhere(closed_door: Door) -> None:
    def lead(**fields: str) -> str:
        answer = httpx.post(f"{closed_door.url}/login", data=fields)
        assert answer.status_code == 303
        return answer.headers["location"]

    assert lead(token=TOKEN, next="/versions/shop") == "/versions/shop"
    for elsewhere in ("//evil.example", "https://evil.example", "/\\evil.example", "/\r\nx"):
        assert lead(token=TOKEN, next=elsewhere) == "/"
    assert lead(token="wrong", next="/versions") == "/login?failed=1&next=%2Fversions"


def test_a_session_acts_only_from_our_own_pages(closed_door: Door) -> None:
    """A browser sends the cookie whoever asks it to."""
    host = urlsplit(closed_door.url).netloc
    with signed_in(closed_door) as browser:
        assert code(browser.post("/api/actions", json={})) == (403, "no-origin")
        evil = {"Origin": "http://evil.example"}
        assert code(browser.post("/api/actions", json={}, headers=evil)) == (403, "other-origin")
        assert code(browser.post("/api/actions", json={}, headers={"Origin": "null"})) == (403, "other-origin")
        ours = {"Origin": f"http://{host}"}
        assert code(browser.post("/api/actions", json={}, headers=ours)) == (400, "bad-body")
        assert browser.post("/logout", json={}, headers=ours).json() == {"signed_in": False, "seconds": 0}
        assert code(browser.post("/api/actions", json={}, headers=ours)) == (401, "no-token")


def test_a_session_ends_and_cannot_be_made_longer(closed_door: Door) -> None:
    host = urlsplit(closed_door.url).netloc
    with signed_in(closed_door) as browser:
        until, _, signature = browser.cookies[COOKIE].partition(".")
    for cookie in (f"{int(until) + 1}.{signature}", f"{until}.{'0' * 64}", "", ".", f"{until}.é", f"-1.{signature}"):
        answer = httpx.post(
            f"{closed_door.url}/api/actions",
            json={},
            headers={"Origin": f"http://{host}", "Cookie": f"{COOKIE}={cookie}".encode()},
        )
        assert code(answer) == (401, "no-token"), cookie
    closed_door.gateway.doorkeeper._clock = lambda: float(until)
    answer = httpx.post(
        f"{closed_door.url}/api/actions",
        json={},
        headers={"Origin": f"http://{host}", "Cookie": f"{COOKIE}={until}.{signature}"},
    )
    assert code(answer) == (401, "no-token")


# What holds for every request and answer


def test_a_name_that_is_not_ours_is_refused_however_it_found_us(closed_door: Door) -> None:
    port = urlsplit(closed_door.url).port
    for ours in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "LOCALHOST", "localhost."):
        assert closed_door.get("/health", headers={"Host": ours}).status_code == 200, ours
    for other in ("evil.example", f"127.0.0.1.evil.example:{port}", "", "[", "169.254.169.254"):
        assert code(closed_door.get("/health", headers={"Host": other})) == (421, "unknown-host"), other


def test_the_configured_host_and_names_are_ours() -> None:
    assert allowed_hosts(GatewaySettings(host="0.0.0.0", names="gateway, Recs.example"))[3:] == (
        "gateway",
        "recs.example",
    )
    assert allowed_hosts(GatewaySettings(host="10.0.0.7"))[3:] == ("10.0.0.7",)


@pytest.mark.parametrize("path", ["/health", "/api", "/openapi.json", "/nowhere", "/api/live", "/api/items/x"])
def test_every_answer_forbids_browsers_what_we_never_need(closed_door: Door, path: str) -> None:
    headers = closed_door.head(path).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe-inline" not in headers["content-security-policy"].partition("script-src")[2]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_no_page_of_elsewhere_is_allowed_to_ask(closed_door: Door) -> None:
    asks = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = closed_door.options("/api/actions", headers=asks)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_body_that_is_too_large_is_not_read(closed_door: Door) -> None:
    assert code(closed_door.post("/api/events/shop", content=b" " * (LARGEST_BODY_BYTES + 1))) == (413, "too-large")


def test_a_body_that_hides_its_size_is_read_no_further_than_it_may_be(closed_door: Door) -> None:
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 1_000_000

    with suppress(httpx.WriteError):  # it may hang up while we are still sending
        assert code(closed_door.post("/api/events/shop", content=pieces())) == (413, "too-large")
    assert sent < 60


def test_origins_are_compared_whole() -> None:
    assert is_origin_of("https://recs.example", "recs.example")
    assert not is_origin_of("http://recs.example.evil", "recs.example")
    assert not is_origin_of("http://[", "recs.example")
    assert not is_origin_of("recs.example", "recs.example")


def test_the_token_is_in_no_log_and_no_answer(closed_door: Door, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        texts = [closed_door.get(path).text for path in ("/api/scenarios", "/ready", "/api", "/openapi.json")]
        texts.append(closed_door.post("/login", content=f'{{"token": "{TOKEN}", "x": 1}}').text)
        texts.append(closed_door.post("/api/actions", json={"action": "pause"}).text)
    ours = "\n".join(each.getMessage() for each in caplog.records if each.name.startswith(("streams", "uvicorn")))
    assert TOKEN not in "\n".join([*texts, ours])
