"""Log lines from a grammar: the one kind of noise that is generated.

Not every system keeps logs, and those that do hold private matter. So lines are made from a seed,
in six common layouts, with the dull regularity of the real thing: few services and templates, many
numbers.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from understudy.core.seeds import rng
from understudy.data.corpora.document import Document

_SERVICES = (
    "sshd", "cron", "kernel", "nginx", "postfix/smtpd", "dhclient", "systemd", "rsyslogd",
    "sudo", "containerd", "postgres", "redis", "haproxy", "etcd", "kubelet", "ntpd", "smartd",
    "dbus-daemon",
)  # fmt: skip
_LEVELS = ("DEBUG", "INFO", "INFO", "INFO", "WARN", "ERROR", "TRACE")
_MESSAGES = (
    "connection from {ip} port {port} closed after {ms} ms",
    "accepted publickey for user{n} from {ip} port {port} ssh2: RSA SHA256:{hex}",
    "request {uuid} finished in {ms}ms status={status} bytes={big}",
    "(root) CMD (run-parts --report /etc/cron.hourly)",
    "DHCPREQUEST on eth{d} to {ip} port 67 (xid=0x{hex8})",
    "checkpoint complete: wrote {n} buffers ({d}.{d}%); {d} WAL file(s) added; write={d}.{n} s",
    "[{d}{n}.{big}] usb {d}-{d}: new high-speed USB device number {n} using xhci_hcd",
    "retrying task id={uuid} attempt={d}/5 backoff={ms}ms error=timeout",
    "cache miss key=obj:{hex8}:{n} ttl={big} hit_ratio=0.{n}",
    "GC pause {ms}.{d}ms heap {n}M->{d}M({big}M) young={n} old={d}",
    "heartbeat node-{d}{d} seq={big} lag={ms}ms term={n} commit={big}",
    "worker[{n}] queue=default depth={big} rate={n}.{d}/s",
    "Started Session {big} of user user{n}.",
    "rx_bytes={big}{n} tx_bytes={big} drops={d} errs=0 mtu=1500",
    "temp sensor{d} value={n}.{d} C threshold=85.0 ok",
    "open({path}) = {d}, flags=0x{hex8}",
)
_METHODS = ("GET", "GET", "GET", "POST", "HEAD", "PUT")
_PATHS = (
    "/index.html",
    "/api/v1/items/",
    "/static/app.",
    "/img/",
    "/login",
    "/healthz",
    "/feed?p=",
)
_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64)",
    "curl/7.88.1",
    "kube-probe/1.26",
    "Go-http-client/1.1",
)
LAYOUTS = ("syslog", "web", "levels", "json", "bracket", "key-value")


def _number(random: np.random.Generator, low: int, high: int) -> str:
    return str(int(random.integers(low, high)))


def _hex(random: np.random.Generator, digits: int) -> str:
    return random.bytes((digits + 1) // 2).hex()[:digits]


def _fill(template: str, random: np.random.Generator) -> str:
    """Replace every {field} of a template by a value of its own."""
    makers = {
        "ip": lambda: ".".join(_number(random, 1, 255) for _ in range(4)),
        "port": lambda: _number(random, 1024, 65536),
        "ms": lambda: _number(random, 1, 5000),
        "n": lambda: _number(random, 10, 100),
        "d": lambda: _number(random, 0, 10),
        "big": lambda: _number(random, 1000, 1_000_000),
        "status": lambda: str(random.choice([200, 200, 200, 204, 301, 404, 500])),
        "hex": lambda: _hex(random, 43),
        "hex8": lambda: _hex(random, 8),
        "uuid": lambda: "-".join(_hex(random, k) for k in (8, 4, 4, 4, 12)),
        "path": lambda: "/var/lib/" + _hex(random, 6) + "/" + _hex(random, 4),
    }
    out: list[str] = []
    for part in template.split("{"):
        name, closed, rest = part.partition("}")
        out.append(makers[name]() + rest if closed and name in makers else part)
    return "".join(out)


def _line(
    layout: str, when: datetime, service: str, message: str, random: np.random.Generator
) -> str:
    level = str(random.choice(_LEVELS))
    if layout == "syslog":
        host, process = random.integers(1, 9), random.integers(300, 32768)
        return f"{when:%b %d %H:%M:%S} host{host} {service}[{process}]: {message}"
    if layout == "web":
        method, path = str(random.choice(_METHODS)), str(random.choice(_PATHS))
        ip = _fill("{ip}", random)
        request = f'"{method} {path}{_hex(random, 4)} HTTP/1.1"'
        tail = f'{random.choice([200, 200, 304, 404])} {random.integers(90, 90000)} "-"'
        return (
            f'{ip} - - [{when:%d/%b/%Y:%H:%M:%S +0000}] {request} {tail} "{random.choice(_AGENTS)}"'
        )
    if layout == "levels":
        return (
            f"{when:%Y-%m-%d %H:%M:%S},{random.integers(0, 1000):03d} {level} {service} - {message}"
        )
    if layout == "json":
        return (
            f'{{"ts":"{when:%Y-%m-%dT%H:%M:%SZ}","level":"{level.lower()}","svc":"{service}",'
            f'"seq":{random.integers(1, 10**6)},"msg":"{message}"}}'
        )
    if layout == "bracket":
        return f"[{when:%H:%M:%S}.{random.integers(0, 1000):03d}] [{service}/{level}] {message}"
    caller = f"{service}.go:{random.integers(10, 900)}"
    return f'ts={when.timestamp():.3f} lvl={level.lower()} caller={caller} msg="{message}"'


def log_document(number: int, chars: int, seed: int) -> Document:
    """Return the `number`-th generated log of about `chars` characters.

    A log has one layout, one to three services and three to six message templates; it depends on
    the seed and the number alone (a longer one begins with the shorter one).
    """
    random = rng("log", seed, number)
    layout = LAYOUTS[int(random.integers(len(LAYOUTS)))]
    services = random.choice(_SERVICES, int(random.integers(1, 4)), replace=False)
    templates = random.choice(_MESSAGES, int(random.integers(3, 7)), replace=False)
    when = datetime(2015, 1, 1, tzinfo=UTC) + timedelta(seconds=int(random.integers(3 * 10**8)))
    pace = float(random.choice([0.2, 3.0, 60.0]))
    begin, lines, size = when, [], 0
    while size < chars:
        when += timedelta(seconds=float(random.exponential(pace)))
        message = _fill(str(random.choice(templates)), random)
        lines.append(_line(layout, when, str(random.choice(services)), message, random))
        size += len(lines[-1]) + 1
    service = str(services[0]).replace("/", "-")
    return Document(
        id=f"log/{seed}/{number}",
        text="\n".join(lines),
        source="log",
        url=f"https://logs.example/{service}/{begin:%Y-%m-%d}/{number}.log",
        time=begin.date().isoformat(),
        group=f"log/{layout}",
        facts={"layout": layout},
    )
