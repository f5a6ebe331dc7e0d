"""The page in a real browser: an admin signs in, finds the call and reads it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.ui import WebDriverWait

from tests.fakes.trunkline import Served, serving, trunkline
from tests.sip.wire import phone

WAIT_S = 10
HOSTILE = "x%3Cimg%20src=x%20onerror=document.title='owned'%3E"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """Debian's Chromium, without a screen and without calls home."""
    options = webdriver.ChromeOptions()
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1200,900",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService("/usr/bin/chromedriver", log_output=subprocess.DEVNULL)
    driver = webdriver.Chrome(options=options, service=service)
    driver.implicitly_wait(WAIT_S)
    yield driver
    driver.quit()


def sign_in(browser: webdriver.Chrome, served: Served, token: str) -> None:
    browser.get(served.url)
    browser.find_element(By.NAME, "token").send_keys(token)
    browser.find_element(By.CSS_SELECTOR, "form button").click()


def test_an_admin_reads_a_call(tmp_path: Path, browser: webdriver.Chrome) -> None:
    """Sign in, see the call in the list, open it: the words and the drawn timeline are there."""
    with serving(tmp_path) as served:
        placed = served.run("call", served.uri, "--say", "When are you open on Saturday?")
        assert placed.returncode == 0, placed.stderr
        served.wait_for_calls(1)
        sign_in(browser, served, "test-token")
        browser.find_element(By.CSS_SELECTOR, "tbody tr a").click()
        WebDriverWait(browser, WAIT_S).until(
            lambda b: "Saturday" in b.find_element(By.TAG_NAME, "main").text
        )
        text = browser.find_element(By.TAG_NAME, "main").text
        shapes = browser.find_elements(By.CSS_SELECTOR, "svg rect")
        problems = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]  # type: ignore[no-untyped-call]
    assert "How can I help" in text
    assert "receptionist" in text
    assert "$0.00" in text, "the offline server costs nothing, and that is known"
    assert len(shapes) >= 3
    assert problems == []


def test_a_wrong_token_opens_nothing(tmp_path: Path, browser: webdriver.Chrome) -> None:
    """Without the token there is a form and a plain word, and no call."""
    with serving(tmp_path, environment={"OPENAI_API_KEY": "unused"}) as served:
        sign_in(browser, served, "guessed")
        refusal = expected_conditions.text_to_be_present_in_element(
            (By.CSS_SELECTOR, "[role=alert]"), "token"
        )
        WebDriverWait(browser, WAIT_S).until(refusal)
        assert browser.find_elements(By.CSS_SELECTOR, "form input[name=token]")
        assert browser.get_cookies() == []


def test_a_hostile_name_is_only_text(tmp_path: Path, browser: webdriver.Chrome) -> None:
    """What a caller calls himself is shown and never run."""
    environment = {"OPENAI_API_KEY": "unused", "TRUNKLINE_REALTIME__BASE_URL": "http://127.0.0.1:9"}
    with serving(tmp_path, environment=environment) as served:
        with phone(served.sip_port, from_user=HOSTILE) as caller:
            caller.say("INVITE", "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\n"
                       "t=0 0\r\nm=audio 40000 RTP/AVP 0\r\n")  # fmt: skip
            caller.hear(503)
            caller.say("ACK")
        call = served.wait_for_calls(1)[0]
        assert "<img" in call["caller_number"] or "%3Cimg" in call["caller_number"]
        sign_in(browser, served, "test-token")
        browser.find_element(By.CSS_SELECTOR, "tbody tr a").click()
        browser.find_element(By.CSS_SELECTOR, "main h1")
        assert browser.find_elements(By.CSS_SELECTOR, "main img") == []
        assert browser.title != "owned"
    assert trunkline("calls", "list", folder=tmp_path).returncode == 0
