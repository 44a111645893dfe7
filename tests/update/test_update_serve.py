"""The service without a network: how it starts, what it refuses, the three ways of searching."""

from __future__ import annotations

import pytest

import serve_toys as toys
from serve_http_toys import config_of
from understudy.core.errors import ConfigError, DataError
from understudy.data.spaces import SpaceError
from understudy.update.gallery import Gallery
from understudy.update.queries import Query, QueryError
from understudy.update.search import build_indexes
from understudy.update.serve import Service
from understudy.update.serve_config import ServeConfig, is_loopback
from understudy.update.serve_encoders import Encoders

ROWS, ENCODED = 150, [0, 4, 9, 33, 100]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("serve") / "store"
    return toys.make_store(path, ROWS, encoded_rows=ENCODED)


def test_remote_hosts_need_a_flag(store):
    for host in ("0.0.0.0", "::", "192.0.2.7"):
        with pytest.raises(ConfigError, match=r"can be reached by other machines.*--allow-remote"):
            config_of(store, host=host)
    assert config_of(store, host="0.0.0.0", allow_remote=True).host == "0.0.0.0"
    assert is_loopback("127.0.0.1")
    assert is_loopback("localhost")
    assert is_loopback("::1")
    with pytest.raises(ConfigError, match="no address"):
        is_loopback("no-such-host.invalid")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"port": 70_000}, "port: expected 0 to 65535"),
        ({"workers": 0}, "workers: expected at least 1"),
        ({"poll_s": 0.0}, "poll_s: expected seconds above 0"),
        ({"metric": "cosign"}, "metric"),
        ({"search": "faiss"}, "search"),
    ],
)
def test_bad_configuration(store, changes, words):
    with pytest.raises(ConfigError, match=words):
        ServeConfig(**{"store": store[0].path, "new": toys.NEW_COLUMN, **changes})
    with pytest.raises(ConfigError, match="name the column"):
        ServeConfig(store=store[0].path)


def test_a_model_of_another_space_is_refused_at_the_start(store):
    other = toys.colour_embedder("text", fingerprint="weights-v3")
    with pytest.raises(SpaceError, match="Equal widths do not") as caught:
        Service(config_of(store), Encoders([other]))
    assert other.space.id in str(caught.value)
    with pytest.raises(DataError, match=r"no column 'embed.none' to serve"):
        Service(ServeConfig(store=store[0].path, new="embed.none"))
    service = Service(config_of(store))
    with pytest.raises(QueryError, match="without --model and cannot encode texts"):
        service.answer(Query(kind="text", text="a"))


def test_the_three_ways_of_searching_agree(tmp_path):
    made = toys.make_store(tmp_path / "s", 200)
    with pytest.raises(DataError, match=r"no index to search.*--build-index"):
        Service(config_of(made, search="index"))
    gallery = Gallery.open(made[0], mapped=toys.MAPPED_COLUMN)
    build_indexes(gallery, kind="IVF_FLAT", num_partitions=1)
    toys.fill(made[0], toys.NEW_COLUMN, toys.NEW, made[1], range(0, 200, 7))
    query = Query(kind="vector", vector=made[1][3], space=toys.NEW.id, filter="label < 4")
    answers = []
    for mode in ("memory", "index", "stream"):
        service = Service(config_of(made, search=mode))
        assert service.state()["search"] == mode
        answers.append(service.answer(query)["hits"])
    assert answers[0] == answers[1] == answers[2]
    assert Service(config_of(made, memory_bytes=1000)).state()["search"] == "index"
    plain = toys.make_store(tmp_path / "t", 50)
    assert Service(config_of(plain, memory_bytes=1000)).state()["search"] == "stream"
