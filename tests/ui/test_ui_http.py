"""The web page by HTTP: who is let in, what is shown, what is refused."""

from __future__ import annotations

import http.client
import json
import sys
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from ui_client import Client, events, serving

from understudy.core.errors import ConfigError
from understudy.launch.engines.local import open_local
from understudy.launch.engines.local_settings import LocalSettings
from understudy.launch.home import Home
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Budget, Output, Rates, Retry, Role
from understudy.launch.state import JobStore
from understudy.launch.state_metrics import MetricSink
from understudy.launch.states import State
from understudy.recipes import RECIPES
from understudy.ui import site as pages
from understudy.ui.config import UiConfig
from understudy.ui.run import UiServer

CLAIM = Path(__file__).parents[2] / "docs" / "claims" / "laptop"
SETTINGS = LocalSettings(
    grace_s=1, heartbeat_s=0.2, idle_exit_s=2, poll_s=0.05, segment_bytes=3000, segments=4
)
EVIL = "<script>alert(1)</script>"


def spec(name, code, **fields):
    words = (sys.executable, "-c", code)
    return JobSpec(
        **{"name": name, "command": words, "retry": Retry(max_failures=0), "key": name, **fields}
    )


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    found = open_local(Home.open(tmp_path_factory.mktemp("home")), SETTINGS)
    found.set_capacity(2)
    yield found
    for status in found.list():
        found.cancel(status.id, 0.1)
        found.wait(status.id, 20)
    found.close()


@pytest.fixture(scope="module")
def claims(tmp_path_factory):
    folder = tmp_path_factory.mktemp("claims")
    (folder / "laptop").mkdir()
    known = sorted(CLAIM.glob("*.json"))[0]
    data = json.loads(known.read_text())
    data["statement"] = f"Better {EVIL}."
    (folder / "laptop" / known.name).write_text(json.dumps(data))
    (folder / "laptop" / "broken.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def server(engine, claims):
    config = UiConfig(home=engine.home, claims=claims, port=0, refresh_s=0.2)
    with serving(config) as running:
        yield running


@pytest.fixture
def client(server):
    return Client(server).sign_in()


# -- who is let in


PATHS = ("/", "/jobs", "/stores", "/claims", "/recipes", "/nowhere", "/jobs/x/follow")


@pytest.mark.parametrize("path", PATHS)
def test_without_the_cookie_nothing_is_told(server, path):
    for cookie in ("", "a=b", f"{server.site.access.cookie}=wrong", "=;;"):
        answer = Client(server, cookie).ask(path)
        assert answer.status == 401
        assert "Refused" in answer.text
        assert "<" not in answer.text


def test_the_token_buys_a_strict_cookie_and_a_wrong_one_does_not(server):
    anybody = Client(server)
    token = server.site.access.token
    for wrong in ("", "x", token[:-1], token + "x", token.swapcase(), "é"):
        answer = anybody.ask(f"/login?token={quote(wrong)}")
        assert answer.status == 401
        assert "set-cookie" not in answer.headers
    answer = anybody.ask(f"/login?token={token}")
    assert answer.status == 200
    facts = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} == set(facts[1:])
    assert token not in answer.headers["set-cookie"]
    assert token not in answer.text
    # the token is for /login alone
    assert Client(server, f"{server.site.access.cookie}={token}").ask("/jobs").status == 401


def test_a_name_that_somebody_points_here_is_refused(client):
    port = urlsplit(client.server.url).port
    for host in (f"evil.example:{port}", "evil.example", f"127.0.0.1.evil.example:{port}", "",
                 f"localhost:{port}@evil.example", f"127.0.0.1:{port}:1"):  # fmt: skip
        answer = client.ask("/jobs", Host=host)
        assert answer.status in (400, 421), host
        assert "digits" not in answer.text
    for host in (f"localhost:{port}", "localhost:9999", "[::1]:9999", f"127.0.0.1:{port}"):
        assert client.ask("/jobs", Host=host).status == 200


def test_every_answer_protects_itself(client, server):
    for path in ("/jobs", "/nowhere", "/static/live.js", "/health"):
        headers = client.ask(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    assert "content-security-policy" in Client(server).ask("/jobs").headers


def test_what_another_page_begins_is_refused(client, engine):
    job = engine.submit(spec("safe", "import time; time.sleep(60)"))
    own, form = client.server.url, {"form": client.form(f"/jobs/{job}")}
    cancel = f"/jobs/{job}/cancel"
    other = f"http://127.0.0.1:{urlsplit(own).port + 1}"
    assert client.ask(cancel, {}).status == 403  # no form token
    assert client.ask(cancel, {"form": "0" * 64}).status == 403
    assert client.ask(cancel, form, Origin="http://evil.example").status == 403
    assert client.ask(cancel, form, Origin=other).status == 403  # same site to a browser
    assert client.ask(cancel, form, Origin="null").status == 403
    assert client.ask(cancel, form, Sec_Fetch_Site="same-site").status == 403
    assert client.ask(cancel, form, Sec_Fetch_Site="cross-site").status == 403
    assert client.ask(cancel, form, Content_Type="text/plain").status == 415
    assert client.ask(cancel, {**form, "x": "y" * 20_000}).status == 413
    assert client.ask(cancel, {**form, "grace": "nan"}).status == 400
    assert client.ask(cancel).status == 405
    assert Client(client.server).ask(cancel, form).status == 401
    # reading by a script of another page is refused too, a link is not
    assert client.ask("/jobs", Sec_Fetch_Site="same-site", Sec_Fetch_Mode="no-cors").status == 403
    assert client.ask("/jobs", Sec_Fetch_Site="same-site", Sec_Fetch_Mode="navigate").status == 200
    assert engine.store.job(job).wish == ""
    answer = client.ask(cancel, {**form, "grace": "0.2"}, Sec_Fetch_Site="same-origin")
    assert (answer.status, answer.headers["location"]) == (303, f"/jobs/{job}")
    assert engine.wait(job, 20).state is State.CANCELLED
    again = client.ask(f"/jobs/{job}/retry", {"form": client.form(f"/jobs/{job}")})
    assert again.status == 303
    new = again.headers["location"].rpartition("/")[2]
    assert engine.store.job(new).retry_of == job
    assert new in client.ask(f"/jobs/{job}").text
    engine.cancel(new, 0.1)


def test_paths_lead_nowhere_else(client, claims):
    (claims / "secret.json").write_text("hidden treasure")
    for path in (
        "/static/..%2f__init__.py", "/static/../access.py", "/static/%2e%2e/access.py",
        "/jobs/..%2f..%2fjobs.db", "/jobs/../../etc/passwd", "/jobs/%00", "/stores/../../etc",
        "/stores/..%2f..%2fetc%2fpasswd", "/stores//etc/passwd", "/claims/..%2f/secret",
        "/claims/laptop/..%2fsecret", "/claims/../secret", "/recipes/..%2f__init__",
        "/static/page.html", "/jobs/..%2f..%2fhome/follow", "/jobs/x/curves",
    ):  # fmt: skip
        answer = client.ask(path)
        assert answer.status == 404, path
        assert "treasure" not in answer.text
        assert "root:" not in answer.text


# -- what is shown


def test_nothing_that_a_job_wrote_becomes_markup(client, engine):
    code = f"print({EVIL!r})"
    job = engine.submit(spec("evil", code, project="p-1", labels={"a": EVIL}, args={}))
    engine.wait(job, 20)
    text = client.ask(f"/jobs/{job}").text
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text


def test_jobs_are_found_by_state_and_word(client, engine):
    job = engine.submit(spec("Needle", "print(1)", project="sewing"))
    engine.wait(job, 20)
    for query in ("?text=needle", "?text=SEWING", "?state=succeeded&text=needle"):
        assert job in client.ask(f"/jobs{query}").text
    assert job not in client.ask("/jobs?state=FAILED").text
    assert job not in client.ask("/jobs?text=haystack").text
    assert client.ask("/jobs?state=nope").status == 400
    for page in ("0", "-1", "x", "9" * 30):
        assert client.ask(f"/jobs?page={page}").status == 400
    assert "No jobs match" in client.ask("/jobs?text=%25").text


def test_a_job_shows_costs_attempts_outputs_and_history(client, engine):
    code = """
import os
from understudy.launch.state_metrics import log
for step in (1, 2, 3, 3, 4): log(step, loss=1.0 / step)
open(os.environ["UNDERSTUDY_OUT_DIR"] + "/m", "w").write("x" * 2500)
"""
    rates = Rates(cpu=7.0, storage_gb_month=2.0)
    job = engine.submit(
        spec(
            "priced",
            code,
            timeout_s=60,
            budget=Budget(max_cost=9.5, rate_table=rates),
            outputs=(Output(name="model", path="m", kind="model"),),
        )
    )
    assert engine.wait(job, 30).state is State.SUCCEEDED
    text = client.ask(f"/jobs/{job}").text
    for word in ("of 9.5 at most", "80.0 % (4 kept of 5 computed)", "2.5 kB", "success", "CREATED",
                 "Run again", "timeout_s"):  # fmt: skip
        assert word in text, word
    assert "Cancel this job" not in text
    found = json.loads(client.ask(f"/jobs/{job}/curves").text)
    assert found["final"] is True
    assert found["curves"] == [
        {"name": "loss", "lines": [{"rank": 0, "points": [[s, 1.0 / s] for s in (1, 2, 3, 4)]}]}
    ]


def test_ten_thousand_jobs(tmp_path, capsys):
    home = Home.open(tmp_path)
    base = spec("many", "print(1)")
    with JobStore(home.database) as store:
        store._db.execute("PRAGMA synchronous=OFF")
        first, _ = store.submit(base, engine="local")
        columns = [r["name"] for r in store._db.execute("PRAGMA table_info(jobs)")]
        row = dict(store._db.execute("SELECT * FROM jobs").fetchone())
        rows = []
        for i in range(1, 10_000):
            changed = {"id": f"many-{i:08x}", "key": str(i), "created": row["created"] + i}
            changed["state"] = "QUEUED" if i % 2 else "SUCCEEDED"
            rows.append([{**row, **changed}[name] for name in columns])
        with store.transaction() as db:
            db.executemany(f"INSERT INTO jobs VALUES({','.join('?' * len(columns))})", rows)
    with serving(UiConfig(home=home, port=0)) as server:
        client = Client(server).sign_in()
        client.ask("/jobs")
        took = {}
        for path in ("/jobs", "/jobs?page=200", "/jobs?state=QUEUED&text=many-0000"):
            start = time.perf_counter()
            text = client.ask(path).text
            took[path] = time.perf_counter() - start
            assert text.count("<tr>") == 51
        assert "10,000" in text or "5,000" in text
        assert f"many-{9_999:08x}" in client.ask("/jobs").text
        last = client.ask("/jobs?page=200").text
        assert first.id in last
        assert "Older" not in last
    with capsys.disabled():
        print(" [10,000 jobs: " + ", ".join(f"{p} {1e3 * t:.0f} ms" for p, t in took.items()) + "]")
    assert min(took.values()) < 1.0


def test_stores_and_their_cards(engine, tmp_path):
    import pyarrow as pa

    from understudy.data.store import Card, Store

    path = tmp_path / "data" / "deep" / "pairs.store"
    store = Store.create(path, [{"id": ["a", "b"], "text": ["x", "y"]}])
    card = Card(column="score", writer=f"judge {EVIL}", config={"threshold": 0.25}, seed=7)
    with store.job([card], {"score": pa.float32()}) as job:
        for unit in job.todo():
            job.write(unit, {"score": pa.array([0.5] * (unit.stop - unit.start), pa.float32())})
    (tmp_path / "data" / "bad" / "_versions").mkdir(parents=True)
    config = UiConfig(home=engine.home, stores=(str(tmp_path / "data"),), port=0)
    with serving(config) as server:
        client = Client(server).sign_in()
        text = client.ask("/stores").text
        assert "data/deep/pairs.store" in text
        assert "data/bad" in text
        assert "score" in text
        text = client.ask("/stores/data/deep/pairs.store").text
        assert "judge &lt;script&gt;" in text
        assert "threshold" in text
        assert "2" in text
        assert client.ask("/stores/deep").status == 404


def test_claims_and_recipes(client):
    name = sorted(CLAIM.glob("*.json"))[0].stem
    text = client.ask("/claims").text
    assert "Better &lt;script&gt;" in text
    assert "no verdict file" in text
    assert f"/claims/laptop/{name}" in text
    assert "Checks" in client.ask(f"/claims/laptop/{name}").text
    assert client.ask("/claims/laptop/broken").status == 400
    text = client.ask("/recipes").text
    assert all(f"/recipes/{recipe}" in text for recipe in RECIPES)
    assert "Claim" in client.ask("/recipes/hierarchical-solver").text


# -- output


def test_the_stream_follows_over_rotation_and_a_lost_connection(client, engine):
    code = "import time\nfor i in range(300): print(i, 'x' * 20, flush=True); time.sleep(0.004)"
    job = engine.submit(spec("talk", code, roles=(Role(replicas=2),)))
    seen: dict[int, list[int]] = {0: [], 1: []}
    cursor, rounds = "", 0
    while True:
        rounds += 1
        address = urlsplit(client.server.url)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        headers = {"Cookie": client.cookie} | ({"Last-Event-ID": cursor} if cursor else {})
        connection.request("GET", f"/jobs/{job}/follow?tail=1000", headers=headers)
        stream = connection.getresponse()
        assert stream.getheader("content-type").startswith("text/event-stream")
        ended, taken = False, 0
        while taken < 4 and not ended:
            block = b""
            while not block.endswith(b"\n\n"):
                line = stream.readline()
                assert line, "the stream broke"
                block += line
            for kind, name, data in events(block.decode()):
                taken += 1
                cursor = name
                ended = kind == "end"
                for attempt, rank, seq, _, kind_of, text in json.loads(data):
                    assert kind_of != "note", text
                    assert attempt == 1
                    seen[rank].append(int(text.split()[0]))
                    assert seq == len(seen[rank])
        connection.close()
        if ended:
            break
    assert rounds > 2
    assert seen == {0: list(range(300)), 1: list(range(300))}


def test_the_tail_and_what_came_before(client, engine):
    code = "for i in range(60): print(i)\nimport sys; print('oops', file=sys.stderr)"
    job = engine.submit(spec("tail", code))
    engine.wait(job, 20)
    (one, end) = events(client.ask(f"/jobs/{job}/follow?tail=5").text)
    lines = json.loads(one[2])
    assert [line[2] for line in lines] == [57, 58, 59, 60, 61]
    assert end == ("end", "1.0:61", "[]")
    before = json.loads(client.ask(f"/jobs/{job}/earlier?before=1.0:57").text)
    assert [line[2] for line in before] == list(range(1, 57))
    (one, _) = events(client.ask(f"/jobs/{job}/follow?stream=stderr").text)
    assert [line[5] for line in json.loads(one[2])] == ["oops"]
    for query in ("stream=x", "rank=7", "rank=-1", "tail=99999999", "cursor=a", "cursor=1.0:"):
        assert client.ask(f"/jobs/{job}/follow?{query}").status == 400, query
    assert client.ask(f"/jobs/{job}/earlier?before=1.9:5").status == 400


def test_curves_are_thinned_and_peaks_stay(client, engine):
    job = engine.store.submit(spec("curve", "1"), engine="local")[0].id
    with MetricSink(engine.store) as sink:
        for step in range(5000):
            sink.add(job, step, "loss", 9.0 if step == 2517 else float("nan") if step == 3 else 1.0)
    found = json.loads(client.ask(f"/jobs/{job}/curves").text)
    points = found["curves"][0]["lines"][0]["points"]
    assert len(points) <= 810
    assert [2517, 9.0] in points
    assert points[0][0] == 0
    assert points[-1][0] == 4999
    with engine.store.transaction():
        engine.store.move_inside(job, State.CANCELLED)


# -- start and stop


def test_a_port_that_is_taken(server, engine):
    port = urlsplit(server.url).port
    with pytest.raises(ConfigError, match=f"cannot listen on port {port}"):
        UiServer(UiConfig(home=engine.home, port=port))


def test_open_streams_do_not_hold_the_server(engine):
    job = engine.submit(spec("quiet", "import time; time.sleep(60)"))
    with serving(UiConfig(home=engine.home, port=0)) as server:
        client = Client(server).sign_in()
        address = urlsplit(server.url)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        connection.request("GET", f"/jobs/{job}/follow", headers={"Cookie": client.cookie})
        assert connection.getresponse().status == 200
        start = time.monotonic()
    assert time.monotonic() - start < 3
    connection.close()
    engine.cancel(job, 0.1)


def test_bad_settings(engine, tmp_path):
    home = engine.home
    with pytest.raises(ConfigError, match="stores: there is no folder"):
        UiConfig(home=home, stores=(str(tmp_path / "none"),))
    with pytest.raises(ConfigError, match="claims: there is no folder"):
        UiConfig(home=home, claims=tmp_path / "none")
    with pytest.raises(ConfigError, match="port: expected 0 to 65535, got 70000"):
        UiConfig(home=home, port=70000)
    with pytest.raises(ConfigError, match="refresh_s: expected more than 0"):
        UiConfig(home=home, refresh_s=0)


def test_words_for_numbers():
    assert pages.lasted(None) == "-"
    assert pages.lasted(59.94) == "59.9 s"
    assert pages.lasted(3600 * 26 + 61) == "1 d 2 h"
    assert pages.lasted(61) == "1 min 1 s"
    assert pages.sized(999) == "999 B"
    assert pages.sized(2_500_000) == "2.5 MB"
    assert pages.shown(True) == "yes"
    assert pages.shown({"a": 1}) == '{"a": 1}'
