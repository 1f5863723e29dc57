#!/usr/bin/env python3
"""Verifies Wardroom's audit log without Wardroom: Python's standard library only, no code shared with the writer.

    python3 verify_audit.py --data ./data --public-key audit-public-key.pem [--heads heads.jsonl]
    python3 verify_audit.py --file export.jsonl --public-key audit-public-key.pem [--heads heads.jsonl]

Reads a data folder of a stopped server (SQLite) or a file of `wardroom audit export`. Prints one JSON object:
`entries`, `ok`, `first_broken` (the first entry that is missing or may not be the original) and `faults`. Exit code 0:
intact; 1: not intact; 2: it cannot be read.

What is verified (docs/audit.md): each entry's hash is SHA-256(previous hash LF sequence LF text); each signed head
contains the SHA-256 of the one before it; the last head is signed with Ed25519; the hash of the entry at which a head
ends is the one in the head; and the log is not shorter than any head, the published ones included.
"""

import argparse
import base64
import functools
import hashlib
import json
import os
import sqlite3
import sys
from datetime import datetime, timezone

GENESIS = "0" * 64
CONTEXT = "wardroom audit head v1\n"
KEY_PREFIX = bytes.fromhex("302a300506032b6570032100")
MAX_DELAY_SECONDS = 60
COMMANDS = {"create_token", "revoke_token", "bus_new_epoch"}
# Fields of the lines of an export that are no entries.
SPECIAL = {"format", "head", "entries"}
FIELDS = {"@timestamp", "tenant", "principal", "agent", "incident_id", "action", "decision", "approved_by"}


# ---- Ed25519 (RFC 8032, section 6) --------------------------------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def recover_x(y, sign):
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if x2 == 0:
        return None if sign else 0
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * SQRT_M1 % P
    if (x * x - x2) % P:
        return None
    return P - x if (x & 1) != sign else x


G_Y = 4 * pow(5, P - 2, P) % P
G_X = recover_x(G_Y, 0)
G = (G_X, G_Y, 1, G_X * G_Y % P)


def add(a, b):
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    g, h = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    i, j, k, m = f - e, h - g, h + g, f + e
    return (i * j % P, k * m % P, j * k % P, i * m % P)


def multiply(scalar, point):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def decompress(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    x = recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


# Of many files at once, mostly the same heads.
@functools.lru_cache(maxsize=65536)
def is_signed(key, message, signature):
    if len(key) != 32 or len(signature) != 64:
        return False
    public, r = decompress(key), decompress(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if public is None or r is None or s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    left, right = multiply(s, G), add(r, multiply(h, public))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0


# ---- Heads --------------------------------------------------------------------------------------------------------


def canonical(value):
    """RFC 8785, for what is in heads and entries: no floating-point numbers are needed here."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def seconds(text):
    return datetime.fromisoformat(text[:19] + "+00:00").timestamp()


def is_head_valid(signed):
    try:
        key = base64.b64decode(signed["public_key"], validate=True)
        signature = base64.b64decode(signed["signature"], validate=True)
        return key.startswith(KEY_PREFIX) and is_signed(
            key[len(KEY_PREFIX) :], (CONTEXT + canonical(signed["head"])).encode(), signature
        )
    except (ValueError, KeyError, TypeError):
        return False


class Log:
    """The entries up to the first that is broken."""

    def __init__(self):
        self.hashes, self.entries, self.broken = {}, [], None

    def push(self, sequence, text, body_hash):
        if self.broken:
            return
        expected = len(self.entries) + 1
        previous = self.hashes.get(expected - 1, GENESIS)
        try:
            entry = json.loads(text)
            is_entry = isinstance(entry, dict) and set(entry) == FIELDS
        except (ValueError, TypeError):
            is_entry = False
        if sequence != expected or not is_entry or sha256(f"{previous}\n{expected}\n{text}") != body_hash:
            self.broken = expected
            return
        self.hashes[expected] = body_hash
        self.entries.append(entry)


def verify(log, heads, noted, key, is_key_given, published, now):
    faults = []
    fault = lambda code, first: faults.append({"code": code, "first_broken": first})
    count = len(log.entries)
    if log.broken:
        fault("chain_broken", log.broken)
    start = max((i for i, head in enumerate(heads) if head["head"].get("accepted")), default=0)
    in_force = heads[start:]
    last = heads[-1] if heads else None
    check_heads(fault, heads, in_force, last, noted, key)
    check_published(fault, log, heads, published, key, count)
    compare(fault, log, in_force, count)
    check_unsigned(fault, log, last, is_key_given, count, now)
    first = min((f["first_broken"] for f in faults), default=None)
    entries = log.broken or count
    return {"entries": entries, "ok": not faults, "first_broken": first, "faults": faults}


def check_heads(fault, heads, in_force, last, noted, key):
    if last:
        if not is_head_valid(last):
            return fault("bad_signature", 1)
        if key and last["public_key"] != key:
            return fault("wrong_key", 1)
    before = None
    for index, signed in enumerate(in_force):
        head = signed["head"]
        if before is None:
            follows = head["previous"] == {"sequence": 0, "hash": GENESIS} and head.get("previous_head") is None
        else:
            follows = head["previous"] == before["head"]["position"] and head["previous_head"] == sha256(canonical(before))
        is_accepted = index == 0 and head.get("accepted")
        if not is_accepted and (not follows or head["position"]["sequence"] <= head["previous"]["sequence"]):
            return fault("ledger_damaged", head["previous"]["sequence"] + 1)
        before = signed
    if noted and noted not in heads:
        fault("ledger_damaged", last["head"]["position"]["sequence"] + 1 if last else 1)


def check_published(fault, log, heads, published, key, count):
    accepted = [head["head"]["at"] for head in heads if head["head"].get("accepted")]
    since, proven = max((seconds(at) for at in accepted), default=0), 0
    for signed in published:
        if seconds(signed["head"]["at"]) < since:
            continue
        position = signed["head"]["position"]
        if not is_head_valid(signed) or (key and signed["public_key"] != key):
            return fault("bad_signature", proven + 1)
        if position["sequence"] > count:
            return None if log.broken else fault("entries_missing", proven + 1)
        if log.hashes.get(position["sequence"]) != position["hash"]:
            return fault("rewritten", proven + 1)
        proven = position["sequence"]


def compare(fault, log, in_force, count):
    proven = 0
    for signed in in_force:
        position = signed["head"]["position"]
        if log.hashes.get(position["sequence"]) == position["hash"]:
            proven = position["sequence"]
        elif position["sequence"] <= count:
            return fault("rewritten", proven + 1)
        else:
            return None if log.broken else fault("entries_missing", proven + 1)


def check_unsigned(fault, log, last, is_key_given, count, now):
    if not last:
        return fault("not_signed", 1) if is_key_given else None
    first = last["head"]["position"]["sequence"] + 1
    rest = log.entries[first - 1 :]
    if count < first or not rest or all(entry["action"] in COMMANDS for entry in rest):
        return None
    if now > seconds(rest[0]["@timestamp"]) + MAX_DELAY_SECONDS:
        fault("signing_behind", first)


# ---- Reading ------------------------------------------------------------------------------------------------------


def read_key(path):
    with open(path, encoding="ascii") as file:
        return "".join(line.strip() for line in file if not line.startswith("-----"))


def read_data(folder):
    ledger = os.path.join(folder, "executor", "ledger.jsonl")
    heads, noted, log, key = [], None, Log(), None
    if os.path.exists(ledger):
        with open(ledger, encoding="utf-8") as file:
            for line in file.read().split("\n")[:-1]:
                entry = json.loads(line)
                if entry["step"] == "audit_head":
                    heads.append(entry["signed"])
    pem = os.path.join(folder, "executor", "audit-public-key.pem")
    key = read_key(pem) if os.path.exists(pem) else None
    database = sqlite3.connect(f"file:{os.path.join(folder, 'state', 'wardroom.db')}?mode=ro", uri=True)
    for sequence, body, body_hash in database.execute("SELECT sequence, body, hash FROM audit ORDER BY sequence"):
        log.push(sequence, body, body_hash)
    for (head,) in database.execute("SELECT head FROM audit_head"):
        noted = json.loads(head)
    return log, heads, noted, key, datetime.now(timezone.utc).timestamp()


def read_line(text):
    """A line of an export. One that is none breaks the chain like any other change of an entry."""
    try:
        line = json.loads(text)
    except ValueError:
        line = None
    if isinstance(line, dict):
        types = {key: type(value) for key, value in line.items()}
        if types == {"sequence": int, "text": str, "hash": str} or "sequence" not in types and types.keys() & SPECIAL:
            return line
    return {"sequence": -1, "text": "", "hash": ""}


def read_export(path):
    log, heads, key, entries, complete = Log(), [], None, 0, False
    with open(path, encoding="utf-8") as file:
        lines = [read_line(line) for line in file]
    if not lines or lines[0].get("format") != "wardroom audit export 1":
        raise ValueError("it is no export")
    key, now = lines[0]["public_key"], seconds(lines[0]["exported_at"])
    for line in lines[1:]:
        if "sequence" in line:
            entries += 1
            log.push(line["sequence"], line["text"], line["hash"])
        elif "head" in line:
            heads.append(line["head"])
    complete = lines[-1] == {"entries": entries, "heads": len(heads)}
    return log, heads, None, key, now, complete


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", help="data folder of a stopped server")
    source.add_argument("--file", nargs="+", help="files of `wardroom audit export`; one line of JSON for each")
    parser.add_argument("--public-key", help="copy of the executor's audit-public-key.pem that is kept elsewhere")
    parser.add_argument("--heads", help="heads that the executor has published, one a line")
    arguments = parser.parse_args()
    code = 0
    for path in arguments.file or [None]:
        found, result = check(arguments, path)
        print(json.dumps(found))
        code = max(code, result)
    return code


def check(arguments, path):
    try:
        complete = True
        if path is None:
            log, heads, noted, key, now = read_data(arguments.data)
        else:
            log, heads, noted, key, now, complete = read_export(path)
        key = read_key(arguments.public_key) if arguments.public_key else key
        published = []
        if arguments.heads:
            with open(arguments.heads, encoding="utf-8") as file:
                published = [json.loads(line) for line in file if line.strip()]
        found = verify(log, heads, noted, key, bool(arguments.public_key), published, now)
    except (OSError, ValueError, KeyError, TypeError, sqlite3.Error) as error:
        return {"ok": False, "error": str(error)}, 2
    if not complete:
        found["ok"] = False
        found["faults"].append({"code": "unreadable", "first_broken": found["entries"] + 1})
        found["first_broken"] = min(f["first_broken"] for f in found["faults"])
    return found, 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
