"""schema.py WORK TOOL ROUNDS: compares the C tables with roost.proto's descriptors, then sends random frames through the C
codec and compares what comes out with python3-protobuf (binary) and with the JSON rules of roost.proto's head, written here
a second time. Run by check_schema."""
import base64
import json
import random
import subprocess
import sys
import uuid

work, tool, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.path.insert(0, work)
import roost_pb2  # noqa: E402  (made by protoc from roost.proto)
from google.protobuf import descriptor_pb2  # noqa: E402
from google.protobuf.descriptor import FieldDescriptor as FD  # noqa: E402

NAMES = {FD.TYPE_UINT64: "uint64", FD.TYPE_UINT32: "uint32", FD.TYPE_BOOL: "bool", FD.TYPE_ENUM: "enum", FD.TYPE_FIXED64: "fixed64",
         FD.TYPE_STRING: "string", FD.TYPE_BYTES: "bytes", FD.TYPE_MESSAGE: "message"}
failures = 0


def fail(text):
    global failures
    failures += 1
    if failures <= 10:
        print(text)


# ---- tables

def described():
    """What roost.proto says, in the tool's words."""
    files = descriptor_pb2.FileDescriptorSet()
    with open(f"{work}/roost.desc", "rb") as file:
        files.ParseFromString(file.read())
    lines = set()
    for message in files.file[0].message_type:
        for f in message.field:
            kind = NAMES[f.type]
            lines.add(" ".join(["field", message.name, str(f.number), f.name, kind,
                                "repeated" if f.label == f.LABEL_REPEATED else "optional",
                                f.type_name.split(".")[-1] or "-", "true" if f.default_value == "true" else "-",
                                "uuid" if kind == "bytes" and f.name.endswith("_id") else "-"]))
            if f.default_value not in ("", "true"):
                fail(f"default of {message.name}.{f.name} is not one the tables can say")
    for enum in files.file[0].enum_type:
        for v in enum.value:
            lines.add(f"value {enum.name} {v.number} {v.name}")
    return lines


dumped = set(subprocess.run([tool, "--dump"], check=True, capture_output=True, text=True).stdout.splitlines())
for line in sorted(described() - dumped):
    fail(f"only in roost.proto: {line}")
for line in sorted(dumped - described()):
    fail(f"only in the tables:  {line}")

# ---- random frames

rng = random.Random(20261122)
# Fields whose presence matters although they are 0 or empty; within a Payload every field's does.
FLAGGED = {("Send", "message_id"), ("Send", "conversation_id"), ("Hello", "credit"), ("Hello", "resume"), ("Error", "message_id")}


def integer(bits):
    return rng.choice([0, 1, 127, 128, 2 ** bits - 1, rng.getrandbits(bits), rng.getrandbits(rng.randint(1, bits))])


def text():
    return "".join(rng.choice(["a", "Z", "\"", "\\", "\n", "\0", "\x1f", "\x7f", "/", "é", "€", "😀", "\u2028"])
                   for _ in range(rng.choice([0, 1, 5, 40])))


def scalar(field):
    kind = NAMES[field.type]
    if kind == "uint64":
        return integer(53)
    if kind == "uint32":
        return integer(32)
    if kind == "bool":
        return rng.random() < 0.5
    if kind == "enum":
        return rng.choice(field.enum_type.values).number
    if kind == "fixed64":
        return integer(64)
    if kind == "string":
        return text()
    if field.name.endswith("_id"):
        return rng.choice([bytes(16), rng.randbytes(16)])
    return rng.randbytes(rng.choice([0, 1, 2, 3, 100, 127, 128, 300, 20000 if rng.random() < 0.02 else 4]))


def fill(message):
    fields = list(message.DESCRIPTOR.fields)
    envelope = message.DESCRIPTOR.name in ("Request", "Event")
    body = rng.choice(fields[1:]) if envelope else None
    for f in fields:
        if envelope and f.number > 1 and f is not body:
            continue
        if not envelope and rng.random() < 0.3:
            continue
        target = getattr(message, f.name)
        if f.label == FD.LABEL_REPEATED:
            for _ in range(rng.choice([0, 1, 2, 7])):
                if f.message_type:
                    fill(target.add())
                else:
                    target.append(scalar(f))
        elif f.message_type:
            target.SetInParent()
            fill(target)
        else:
            setattr(message, f.name, scalar(f))
    return message


def canonical(message, exact=False):
    """Nested tuples of what a frame means: absent and 0 are one, except where presence matters."""
    name, out = message.DESCRIPTOR.name, {}
    exact = exact or name == "Payload"
    for f, value in message.ListFields():
        if f.label == FD.LABEL_REPEATED:
            out[f.name] = [canonical(v, exact) if f.message_type else v for v in value]
        elif f.message_type:
            inner = canonical(value, exact)
            if inner or exact or f.message_type.name != "Payload":
                out[f.name] = inner
        elif value or exact or (name, f.name) in FLAGGED:
            if exact or (name, f.name) in FLAGGED or value not in (0, "", b"", bytes(16)):
                out[f.name] = value
    return out


def to_json(message, exact=False):
    """A frame as the JSON that roost.proto's head describes."""
    out = {}
    for f, value in message.ListFields():
        many = f.label == FD.LABEL_REPEATED
        values = [one_to_json(f, v) for v in (value if many else [value])]
        out[f.name] = values if many else values[0]
    return out


def one_to_json(f, value):
    kind = NAMES[f.type]
    if kind == "message":
        return to_json(value)
    if kind == "fixed64":
        return str(value)
    if kind == "enum":
        return f.enum_type.values_by_number[value].name if rng.random() < 0.8 else value
    if kind == "bytes":
        return str(uuid.UUID(bytes=value)) if f.name.endswith("_id") else base64.b64encode(value).decode()
    return value


def from_json(descriptor, tree):
    message = getattr(roost_pb2, descriptor.name)()
    read_json(message, tree)
    return message


def read_json(message, tree):
    for name, value in tree.items():
        f = message.DESCRIPTOR.fields_by_name[name]
        target = getattr(message, name)
        if f.label == FD.LABEL_REPEATED:
            for v in value:
                if f.message_type:
                    read_json(target.add(), v)
                else:
                    target.append(one_from_json(f, v))
        elif f.message_type:
            target.SetInParent()
            read_json(target, value)
        else:
            setattr(message, name, one_from_json(f, value))


def one_from_json(f, value):
    kind = NAMES[f.type]
    if kind == "fixed64":
        assert isinstance(value, str)
        return int(value)
    if kind == "enum":
        return f.enum_type.values_by_name[value].number
    if kind == "bytes":
        return uuid.UUID(value).bytes if f.name.endswith("_id") else base64.b64decode(value, validate=True)
    assert type(value) is {"string": str, "bool": bool}.get(kind, int), (f.name, value)
    return value


pipe = subprocess.Popen([tool, "--filter"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")


def ask(line):
    pipe.stdin.write(line + "\n")
    pipe.stdin.flush()
    return pipe.stdout.readline().rstrip("\n")


def compare(frame, line):
    kind = type(frame)
    answer = ask(line)
    try:
        encoded, _, as_json = answer.partition(" ")
        proto = kind.FromString(bytes.fromhex(encoded))
        parsed = from_json(kind.DESCRIPTOR, json.loads(as_json, object_pairs_hook=unique))
    except Exception as problem:  # any surprise is a finding
        return fail(f"{line[:300]}\n  → {answer[:300]}\n  {problem!r}")
    want = canonical(frame)
    if canonical(proto) != want:
        fail(f"binary differs\n  in  {want}\n  out {canonical(proto)}")
    if canonical(parsed) != want:
        fail(f"JSON differs\n  in  {want}\n  out {canonical(parsed)}")
    if proto.SerializeToString(deterministic=True).hex() != encoded:
        fail(f"not the canonical encoding: {encoded}")


def unique(pairs):
    assert len({k for k, _ in pairs}) == len(pairs), pairs
    return dict(pairs)


seen = set()
for number in range(rounds):
    frame = rng.choice([roost_pb2.ClientFrame, roost_pb2.ServerFrame])()
    side = "q" if isinstance(frame, roost_pb2.ClientFrame) else "e"
    for _ in range(rng.choice([0, 1, 1, 1, 2, 5])):
        element = fill((frame.requests if side == "q" else frame.events).add())
        seen |= {f.name for f, _ in element.ListFields()}
    compare(frame, f"{side} p {frame.SerializeToString().hex()}")
    compare(frame, f"{side} j {json.dumps(to_json(frame), ensure_ascii=rng.random() < 0.5)}")
pipe.stdin.close()
pipe.wait()
for name in ("Request", "Event"):
    for f in roost_pb2.DESCRIPTOR.message_types_by_name[name].fields:
        if f.name not in seen and f.name != "id":
            fail(f"no random frame had a {f.name}")
print(f"{len(dumped)} rows, {2 * rounds} frames compared, {failures} differences")
sys.exit(failures != 0)
