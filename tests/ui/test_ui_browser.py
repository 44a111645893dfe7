"""The web page in headless Chromium: drawn, followed, operated by keyboard, without errors."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from chrome import Chrome, browser
from ui_client import serving

from understudy.launch.engines.local import open_local
from understudy.launch.engines.local_settings import LocalSettings
from understudy.launch.home import Home
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Retry
from understudy.launch.states import State
from understudy.ui.config import UiConfig

CLAIMS = Path(__file__).parents[2] / "docs" / "claims"
CODE = """
import pathlib, sys, time
from understudy.launch.state_metrics import log
go = pathlib.Path(sys.argv[1])
for step in range(40):
    print("line", step, "<img src=x>", flush=True)
    log(step, loss=1.0 / (1 + step))
while not go.exists():
    time.sleep(0.02)
print("later line", file=sys.stderr, flush=True)
log(40, loss=0.01)
while not go.with_suffix(".end").exists():
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    settings = LocalSettings(grace_s=1, heartbeat_s=0.2, idle_exit_s=2, poll_s=0.05)
    found = open_local(Home.open(tmp_path_factory.mktemp("home")), settings)
    found.set_capacity(2)
    yield found
    for status in found.list():
        found.cancel(status.id, 0.1)
        found.wait(status.id, 20)
    found.close()


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    if browser() is None:
        pytest.skip("no Chromium on this machine: install it to test the web page in a browser")
    with Chrome(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def server(engine):
    config = UiConfig(home=engine.home, claims=CLAIMS, port=0, refresh_s=0.2)
    with serving(config) as running:
        yield running


def submit(engine, name, code, *args):
    words = (sys.executable, "-c", code, *args)
    return engine.submit(JobSpec(name=name, command=words, retry=Retry(max_failures=0)))


@pytest.mark.browser
def test_a_job_is_seen_while_it_runs_and_cancelled_by_hand(chrome, server, engine, tmp_path):
    go = tmp_path / "go"
    job = submit(engine, "watched", CODE, str(go))
    chrome.open(server.login)
    chrome.until("location.pathname === '/jobs'")
    assert server.site.access.token not in chrome.run("location.href + document.referrer")
    assert chrome.run("document.cookie") == ""  # no script sees it
    chrome.until(f"document.body.innerText.includes('{job}')")
    chrome.until("document.querySelector('.RUNNING') !== null")  # the list renews itself

    chrome.open(f"{server.url}/jobs/{job}")
    chrome.until("document.querySelectorAll('#log .stdout').length === 40")
    assert "line 39 <img src=x>" in chrome.run("document.getElementById('log').innerText")
    assert chrome.run("document.querySelectorAll('#log img').length") == 0
    drawn = "document.querySelector('#curves path').getAttribute('d').split('L').length"
    chrome.until("document.querySelector('#curves path') !== null")
    chrome.until(f"{drawn} === 40")
    assert chrome.run("document.querySelector('#curves figcaption').innerText") == "loss"

    go.touch()  # what the job writes now comes by itself
    chrome.until("document.querySelector('#log .stderr')?.innerText.includes('later line')")
    chrome.until(f"{drawn} === 41")
    label = chrome.run("document.querySelector('#curves svg').getAttribute('aria-label')")
    assert label == "loss over steps: 1.000 at step 0 to 0.01000 at step 40"

    # arrow keys read the curve out
    chrome.run("document.querySelector('#curves figure').focus()")
    chrome.key("Home")
    assert "1 at step 0" in chrome.run("document.querySelector('#curves output').innerText")
    chrome.key("ArrowRight")
    assert "0.5 at step 1" in chrome.run("document.querySelector('#curves output').innerText")

    # only one stream
    chrome.run("{const s = document.getElementById('stream'); s.value = 'stderr';"
               "s.dispatchEvent(new Event('change')); 1}")  # fmt: skip
    chrome.until("document.querySelectorAll('#log span').length === 1")

    chrome.run("document.querySelector('#cancel summary').click()")
    chrome.run("document.querySelector('#grace').value = '1'")
    chrome.run("document.querySelector('#cancel button').click()")
    chrome.until("document.querySelector('.CANCELLED') !== null")
    assert engine.wait(job, 20).state is State.CANCELLED
    chrome.until("document.getElementById('log-state').innerText === 'the job has ended'")
    assert chrome.console == []


@pytest.mark.browser
def test_the_stream_goes_on_after_the_server_was_away(chrome, engine, tmp_path):
    code = "import time\nfor i in range(120): print('n', i, flush=True); time.sleep(0.05)"
    job = submit(engine, "long", code)
    config = UiConfig(home=engine.home, port=0, refresh_s=0.2)
    with serving(config) as first:
        port = int(first.url.rpartition(":")[2])
        session, token = first.site.access._session, first.site.access
        chrome.open(first.login)
        chrome.until("location.pathname === '/jobs'")
        chrome.open(f"{first.url}/jobs/{job}")
        chrome.until("document.querySelectorAll('#log span').length > 10")
    assert engine.store.job(job).state is State.RUNNING
    time.sleep(0.5)
    again = UiConfig(home=engine.home, port=port, refresh_s=0.2)
    with serving(again) as second:
        # the same secrets, as if only the connection had been lost
        second.site.access._kept = token._kept
        assert session != second.site.access._session
        chrome.until("document.getElementById('log-state').innerText === 'the job has ended'", 40)
        text = chrome.run("document.getElementById('log').innerText")
    assert text.split("\n")[:-1] == [f"n {i}" for i in range(120)]
    chrome.leave()  # connections were refused while nobody listened


@pytest.mark.browser
def test_every_page_is_whole_in_light_and_dark_and_asks_nobody_else(chrome, server):
    chrome.leave()
    chrome.open(server.login)
    chrome.until("location.pathname === '/jobs'")
    known = sorted(CLAIMS.glob("laptop/*.json"))[0].stem
    paths = ("/jobs", "/stores", "/claims", f"/claims/laptop/{known}", "/recipes")
    colours = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        chrome.call("Emulation.setEmulatedMedia", features=features)
        for path in paths:
            chrome.open(server.url + path)
            assert chrome.run("document.querySelectorAll('h1').length") == 1
            assert chrome.run("document.documentElement.lang") == "en"
            # every field has a label, every table a header
            assert chrome.run(
                "[...document.querySelectorAll('input:not([type=hidden]), select')]"
                ".every((field) => field.labels.length > 0)"
            )
            assert chrome.run(
                "[...document.querySelectorAll('table')].every((t) => t.querySelector('th[scope]'))"
            )
        colours[scheme] = chrome.run("getComputedStyle(document.body).backgroundColor")
    assert colours == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}
    chrome.key("Tab")  # the first stop of the keyboard leads past the menu
    assert chrome.run("document.activeElement.className") == "skip"
    own = [a for a in chrome.asked if a.startswith((server.url, "data:"))]
    assert own == chrome.asked
    assert chrome.console == [], json.dumps(chrome.console, indent=1)
