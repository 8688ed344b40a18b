#!/usr/bin/python3
"""disk_error.py: inside `crash with` (tests/crash/check_disk_error): the real gateway on a disk that fails one write or one
flush. From then on nothing is acknowledged, sends get a typed error, history is still served, metric and log line say so;
after a restart on the mended disk all that was acknowledged is there, and sending goes on.
"""
import sys
sys.dont_write_bytecode = True
import asyncio
import os
import subprocess

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from roost import Gateway, client, run, same, text_of  # noqa: E402

MOUNT = os.environ["CRASH_MOUNT"]
FILESYSTEM = os.environ["CRASH_FILESYSTEM"]
DIRECT = os.environ["CRASH_DIRECT"]
gateways = []


def command(text):
    with open(os.environ["CRASH_CONTROL"], "w", encoding="ascii") as control:
        control.write(text)


def remount():
    """What an operator does who changed the cable: the file system may have gone read-only or shut down."""
    device = next(line.split()[0] for line in open("/proc/mounts", encoding="ascii") if line.split()[1].endswith(MOUNT))
    subprocess.run(["umount", MOUNT], check=True)
    subprocess.run(["mount", "-t", FILESYSTEM, device, MOUNT], check=True)


async def answer(a, id):
    """The ack or error of a request."""
    for _ in range(8000):
        for at, (event_id, kind, body) in enumerate(a.pending):
            if event_id == id and kind in ("ack", "error"):
                del a.pending[at]
                return kind, body
        await asyncio.sleep(0.001)
    raise AssertionError("a send was not answered")


async def fails_on(what):
    name = f"disk-error-{FILESYSTEM}-{what}-{DIRECT}"
    gateway = Gateway(name, {"store.directory": f"{MOUNT}/{what}", "store.segment_size": "4 MiB", "store.batch_size": "1 MiB",
                             "store.catalog_map_size": "64 MiB", "store.checkpoint_interval": "1 h", "store.direct": DIRECT})
    gateways.append(gateway)
    bob = gateway.user("bob")
    gateway.user("alice")
    alice_token = gateway.login("alice")["access_token"]
    bob_token = gateway.login("bob")["access_token"]
    a = await client(gateway, alice_token)
    acked = []
    for i in range(20):
        acked.append((f"before {i}", (await a.send(f"before {i}", to=bob))["seq"]))
    await asyncio.sleep(0.3)  # what the users' rows still had to write is written
    command(f"fail {what} 1")
    ids = [await a.send_only(f"after {i}", to=bob) for i in range(30)]
    answers = [await answer(a, id) for id in ids]
    kinds = [kind for kind, _ in answers]
    first = kinds.index("error")
    acked += [(f"after {i}", answers[i][1]["seq"]) for i in range(first)]
    same("nothing is acknowledged behind the first refusal", ["error"] * (30 - first), kinds[first:])
    same("code", {"READ_ONLY"}, {body["code"] for _, body in answers[first:]})
    same("later, too", ("error", "READ_ONLY"), await refusal(a, bob))
    same("metric", 2.0, gateway.metrics()["roost_log_state"])
    same("not ready", 503, gateway.admin("/readyz")[0])
    log = open(gateway.directory + "/log", encoding="utf-8").read()
    assert "event=log_failed" in log and "state=failed" in log, log[-2000:]
    b = await client(gateway, bob_token)
    same("history is served", acked, [(text_of(m), m["seq"]) for m in await b.messages(len(acked), 30)])
    await b.drop()
    await a.drop()
    gateway.stop()
    remount()
    gateway.start()
    a = await client(gateway, gateway.login("alice")["access_token"])
    b = await client(gateway, gateway.login("bob")["access_token"])
    there = [(text_of(m), m["seq"]) for m in await b.messages(len(acked), 30)]
    same("after the restart", acked, there)
    ack = await a.send("again", to=bob)
    assert ack["seq"] > acked[-1][1], ack
    await b.expect("message", where=lambda m: text_of(m) == "again" and m["seq"] == ack["seq"])
    await a.drop()
    await b.drop()
    gateway.stop()


async def refusal(a, bob):
    kind, body = await answer(a, await a.send_only("later", to=bob))
    return kind, body.get("code")


async def write_fails():
    """one write fails with EIO"""
    await fails_on("write")


async def flush_fails():
    """one flush fails with EIO"""
    await fails_on("flush")


run([write_fails, flush_fails], gateways)
