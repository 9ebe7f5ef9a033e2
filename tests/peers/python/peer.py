"""What every peer script shares: the check runner, the sandbox's control
endpoints, and the memory watch of the relay. Standard library only."""

import contextlib
import hashlib
import json
import os
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
import uuid

# The peers talk to 127.0.0.1 only; a proxy of the machine would swallow that.
for name in list(os.environ):
    if name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
        del os.environ[name]

CHINESE = "你好，世界！今天天气怎么样？🙂"
MIB = 1024 * 1024

_checks = []


def check(function):
    """Registers a check under its function's name."""
    _checks.append((function.__name__, function, False))
    return function


def relay_check(function):
    """Registers a check of the relay's own behaviour: skipped when RELAY_PID
    is unset, that is when AIPROXY_URL names the sandbox itself."""
    _checks.append((function.__name__, function, True))
    return function


def run():
    """Runs the checks named in argv (all when none is) and exits."""
    names = sys.argv[1:]
    if names == ["--list"]:
        for name, _, needs_relay in _checks:
            print(f"{name} (relay)" if needs_relay else name)
        sys.exit(0)
    unknown = [n for n in names if n not in [c[0] for c in _checks]]
    if unknown:
        sys.exit(f"no such check: {', '.join(unknown)} (see --list)")
    missing = [v for v in ("AIPROXY_URL", "AIPROXY_KEY", "SANDBOX_URL", "WORK_DIR") if not os.environ.get(v)]
    if missing:
        sys.exit(f"not set: {', '.join(missing)} (see README.md)")

    passed = failed = 0
    for name, function, needs_relay in _checks:
        if names and name not in names:
            continue
        if needs_relay and not behind_relay():
            print(f"skip {name}: RELAY_PID is unset", flush=True)
            continue
        try:
            function()
        except Exception as error:
            failed += 1
            reason = f"{type(error).__name__}: {error}".replace("\n", " ")
            print(f"FAIL {name}: {reason}", flush=True)
            traceback.print_exc()
        else:
            passed += 1
            print(f"ok {name}", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


def note(text):
    print(f"# {text}", flush=True)


def equal(got, want, what="value"):
    if got != want:
        raise AssertionError(f"{what}: got {got!r}, want {want!r}")


def that(condition, what):
    if not condition:
        raise AssertionError(what)


@contextlib.contextmanager
def raises(kind):
    """Expects `kind`; after the block, `.error` of the yielded object is it."""

    class Caught:
        error = None

    caught = Caught()
    try:
        yield caught
    except kind as error:
        caught.error = error
        return
    raise AssertionError(f"expected {kind.__name__}, got no error")


def relay_url():
    return os.environ["AIPROXY_URL"].rstrip("/")


def relay_key():
    return os.environ["AIPROXY_KEY"]


def behind_relay():
    return bool(os.environ.get("RELAY_PID"))


def work_file(name):
    """A path in WORK_DIR that no other run uses."""
    return os.path.join(os.environ["WORK_DIR"], f"{uuid.uuid4().hex[:12]}-{name}")


# --- the sandbox's control endpoints ---------------------------------------


def tagged(scenario=None):
    """Headers of one request: an id to find its record by, and a scenario.
    The id doubles as the gate's name: write `{id}` in the scenario."""
    tag = uuid.uuid4().hex
    headers = {"x-peer-id": tag}
    if scenario:
        headers["x-sandbox"] = scenario.format(id=tag)
    return tag, headers


def _control(method, path):
    request = urllib.request.Request(os.environ["SANDBOX_URL"].rstrip("/") + path, method=method)
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read()


def release(gate):
    _control("POST", f"/sandbox/release/{gate}")


def records(tag):
    """What the sandbox saw of the requests that carried this id."""
    seen = json.loads(_control("GET", "/sandbox/requests"))
    return [r for r in seen if r["headers"].get("x-peer-id") == tag]


def record(tag, outcome, seconds=10):
    """The one record of this id, once it has that outcome."""
    deadline = time.monotonic() + seconds
    while True:
        found = records(tag)
        if len(found) == 1 and found[0]["outcome"] == outcome:
            return found[0]
        if time.monotonic() > deadline:
            raise AssertionError(f"want one record with outcome {outcome!r}, got {found!r}")
        time.sleep(0.05)


def take_until(text, stream):
    """The first items of a stream, up to the first that makes `text(items)` not empty."""
    items = []
    while not text(items):
        items.append(next(stream))
    return items


def still_open(tag):
    """Asserts that the sandbox still holds the rest of this answer back."""
    found = records(tag)
    equal([r["outcome"] for r in found], ["open"], "outcomes while the gate is shut")


def post_json(path, body, headers):
    """A bare POST through the relay, without an SDK: (status, headers, JSON)."""
    request = urllib.request.Request(
        relay_url() + path,
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json", **headers},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.headers, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read())


# --- big files ---------------------------------------------------------------


def random_file(path, size):
    """Writes `size` random bytes, returns their sha256."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            block = os.urandom(MIB)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def file_sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- the relay's memory ------------------------------------------------------


def relay_memory():
    """(resident, anonymous) KiB of the relay."""
    values = {}
    with open(f"/proc/{os.environ['RELAY_PID']}/status") as status:
        for line in status:
            name, _, rest = line.partition(":")
            if name in ("VmRSS", "RssAnon"):
                values[name] = int(rest.split()[0])
    return values["VmRSS"], values["RssAnon"]


@contextlib.contextmanager
def memory_growth_below(limit_mib, what):
    """Samples the relay's resident memory from a thread while the block runs;
    its peak may exceed what it was before by less than `limit_mib`. Without
    RELAY_PID it does nothing."""
    if not behind_relay():
        yield
        return
    before = relay_memory()
    peak = list(before)
    samples = 0
    stop = threading.Event()

    def sample():
        nonlocal samples
        while not stop.is_set():
            for index, value in enumerate(relay_memory()):
                peak[index] = max(peak[index], value)
            samples += 1
            stop.wait(0.002)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    growth, anonymous = (p - b for p, b in zip(peak, before))
    note(f"{what}: relay {before[0]} KiB resident, peak +{growth} KiB (anonymous +{anonymous} KiB), {samples} samples")
    that(samples >= 10, f"{what}: only {samples} memory samples")
    that(growth < limit_mib * 1024, f"{what}: the relay grew by {growth} KiB, limit {limit_mib} MiB")
