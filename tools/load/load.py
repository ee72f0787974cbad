#!/usr/bin/env python3
"""A load on the server from another process, with nothing but Python's own library.

    python3 tools/load/load.py target/release/earthmapper [seconds]

Starts the program with its demo on a free port and measures: tiles that were never asked for (cold), the same again
(cached), and cached ones while slow clients, clients that leave and clients that send rubbish do their worst. Every tile
that comes with status 200 is compared, byte by byte, with that of another process, which made all tiles alone, one after
another. Prints a table, memory as it goes, and ends with 1 when anything was wrong: a tile, a status, memory that grows.

The memory cache is made small (16 MB), so that it is full soon and memory that still grows is a leak.
"""

import hashlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HOST = "127.0.0.1"


class Server:
    def __init__(self, program):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
            config.write("demo = true\n[limits]\nhead_seconds = 5\nidle_seconds = 5\n[cache]\nmemory_megabytes = 16\n")
            config.flush()
            command = [program, "serve", "--listen", f"{HOST}:0", "--json", "--config", config.name]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            url = json.loads(self.process.stdout.readline())["url"]
        self.port = int(url.rsplit(":", 1)[1])
        while self.get("/ready")[0] != 200:
            time.sleep(0.1)
        self.memory, self.watches = [], True
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()

    def watch(self):
        """Memory every half second, under the name of what is going on."""
        while self.watches:
            self.memory.append((time.time(), self.resident()))
            time.sleep(0.5)

    def get(self, path, connection=None):
        own = connection or http.client.HTTPConnection(HOST, self.port, timeout=120)
        own.request("GET", path)
        answer = own.getresponse()
        body = answer.read()
        if connection is None:
            own.close()
        return answer.status, body

    def resident(self):
        with open(f"/proc/{self.process.pid}/status") as lines:
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))

    def files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self):
        self.watches = False
        self.watcher.join()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


class Measured:
    def __init__(self):
        self.lock, self.times, self.statuses = threading.Lock(), [], {}

    def add(self, seconds, status):
        with self.lock:
            self.times.append(seconds)
            self.statuses[status] = self.statuses.get(status, 0) + 1


def row(name, measured, seconds):
    times = sorted(measured.times) or [0.0]
    quantile = lambda share: 1000 * times[min(len(times) - 1, int(share * len(times)))]
    print(f"| {name} | {len(measured.times)} | {len(measured.times) / seconds:.1f} | {quantile(0.5):.1f} | "
          f"{quantile(0.95):.1f} | {quantile(0.99):.1f} | {measured.statuses} |", flush=True)
    return {status for status in measured.statuses if status not in (200, 304, 429, 503)}


def clients(server, count, paths, known, until=None):
    """Clients that take addresses one after another (or, with an end, at random) and look at what they get."""
    measured, queue, lock = Measured(), list(paths), threading.Lock()

    def run(seed):
        choose = random.Random(seed)
        connection = http.client.HTTPConnection(HOST, server.port, timeout=120)
        while until is None or time.time() < until:
            if until is None:
                with lock:
                    if not queue:
                        break
                    path = queue.pop(0)
            else:
                path = choose.choice(paths)
            start = time.perf_counter()
            status, body = server.get(path, connection)
            measured.add(time.perf_counter() - start, status)
            if status == 200:
                with lock:
                    known.setdefault(path, {}).setdefault(hashlib.sha256(body).digest(), 0)
                    known[path][hashlib.sha256(body).digest()] += 1
        connection.close()

    start = time.perf_counter()
    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return measured, time.perf_counter() - start


def slow(server, until):
    """Sends its request a byte at a time, or takes nothing of the answer."""
    while time.time() < until:
        one = socket.create_connection((HOST, server.port))
        try:
            for byte in b"GET /catalog HTTP/1.1\r\nHost: localhost\r\n":
                one.send(bytes([byte]))
                time.sleep(0.1)
                if time.time() > until:
                    break
        except OSError:
            pass
        one.close()


def greedy(server, until):
    """Asks for much and reads nothing."""
    while time.time() < until:
        one = socket.create_connection((HOST, server.port))
        try:
            one.settimeout(1)
            for _ in range(200):
                one.send(b"GET /assets/maplibre-gl.mjs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        except OSError:
            pass
        time.sleep(1)
        one.close()


def leaving(server, until, paths):
    """Asks for tiles that must be made and goes."""
    choose = random.Random(1)
    while time.time() < until:
        one = socket.create_connection((HOST, server.port))
        path = choose.choice(paths).split("&seed")[0] + f"&seed={choose.getrandbits(40)}"
        one.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        time.sleep(0.02)
        one.close()


def rubbish(server, until):
    """Sends what is no request."""
    choose = random.Random(2)
    beginnings = [b"", b"GET / HTTP/1.1\r\n", b"POST /v1/translate?to=map HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
                  b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n{\"a\":", b"GET /town/16/../../etc HTTP/1.1\r\nHost: localhost\r\n\r\n",
                  b"\x16\x03\x01\x02\x00", b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n"]
    while time.time() < until:
        one = socket.create_connection((HOST, server.port))
        try:
            one.settimeout(1)
            one.send(choose.choice(beginnings) + choose.randbytes(choose.randrange(300)))
            one.recv(1000)
        except OSError:
            pass
        one.close()


def conditional(server, count, paths, until):
    """Clients that have the tiles already and ask whether they are still right."""
    measured = Measured()

    def run(seed):
        choose, tags = random.Random(seed), {}
        connection = http.client.HTTPConnection(HOST, server.port, timeout=120)
        while time.time() < until:
            path = choose.choice(paths)
            headers = {"If-None-Match": tags[path]} if path in tags else {}
            start = time.perf_counter()
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            tags[path] = answer.headers["ETag"]
            measured.add(time.perf_counter() - start, answer.status)
        connection.close()

    start = time.perf_counter()
    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return measured, time.perf_counter() - start


def wrong_tiles(program, known):
    """Tiles whose bytes are not those that another process makes, alone and one after another."""
    server, wrong, compared = Server(program), 0, 0
    for path, bodies in sorted(known.items(), reverse=True):
        status, body = server.get(path)
        expected = hashlib.sha256(body).digest()
        compared += sum(bodies.values())
        wrong += sum(count for digest, count in bodies.items() if digest != expected or status != 200)
    server.stop()
    return wrong, compared


def main():
    program, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 20
    server = Server(program)
    known, odd, marks = {}, set(), []
    columns, rows = range(32764, 32772), range(32764, 32772)
    cold = [f"/town/16/{x}/{y}.png?to=satellite&seed=0" for y in rows for x in columns]
    single = [f"/town/16/{x}/{y}.png?to=satellite&seed={seed}" for seed, (x, y) in enumerate([(32766, 32766), (32769, 32767), (32767, 32769)], 1)]

    def phase(name, measured, took):
        marks.append((name, time.time()))
        odd.update(row(name, measured, took))

    print(f"load average {os.getloadavg()}, {os.cpu_count()} processors; resident at the start: {server.resident():.0f} MB")
    print("| load | answers | per s | p50 ms | p95 ms | p99 ms | statuses |\n|---|---:|---:|---:|---:|---:|---|")
    phase("cold, one client, tiles apart", *clients(server, 1, single, known))
    phase("cold, 8 clients, neighbours", *clients(server, 8, cold, known))
    phase("cached, 1 client", *clients(server, 1, cold, known, time.time() + seconds))
    phase("cached, 8 clients", *clients(server, 8, cold, known, time.time() + seconds))
    phase("unchanged (304), 8 clients", *conditional(server, 8, cold, time.time() + seconds / 2))

    def under_noise(name):
        until = time.time() + 2 * seconds
        noise = [threading.Thread(target=work, args=(server, until)) for work in [slow] * 5 + [greedy] * 3 + [rubbish] * 3]
        noise += [threading.Thread(target=leaving, args=(server, until, cold)) for _ in range(4)]
        [thread.start() for thread in noise]
        phase(name, *clients(server, 4, cold, known, until))
        [thread.join() for thread in noise]

    under_noise("4 clients among slow, leaving and senseless ones")
    settled = time.time()
    under_noise("the same once more")
    time.sleep(2)
    phase("cached, 8 clients, after that", *clients(server, 8, cold, known, time.time() + seconds / 2))
    begun = 0.0
    for name, end in marks:
        during = [megabytes for at, megabytes in server.memory if begun <= at < end] or [0.0]
        begun = end
        print(f"memory, {name}: {min(during):.0f} to {max(during):.0f} MB")
    before = max(megabytes for at, megabytes in server.memory if at <= settled)
    after = max(megabytes for at, megabytes in server.memory if at > settled)
    grows = after > 1.1 * before
    print(f"memory at most until the first noise had ended: {before:.0f} MB, from then on: {after:.0f} MB; open files: {server.files()}")
    counts = server.get("/metrics")[1].decode()
    print("\n".join(line for line in counts.splitlines() if line.startswith("earthmapper_") and "_http_" not in line))
    stopped = server.stop()
    wrong, compared = wrong_tiles(program, known)
    print(f"stopped with {stopped}; {compared} tiles compared with another process's, {wrong} wrong; odd statuses: {sorted(odd) or 'none'}")
    sys.exit(1 if wrong or odd or grows or stopped != 0 or compared == 0 else 0)


if __name__ == "__main__":
    main()
