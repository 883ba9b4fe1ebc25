"""Asks sheaf.v1.Statistics for all that it has, by reflection: statistics.py HOST:PORT COUNT

Follows until COUNT windows came. Prints everything in the shape of the HTTP API, as one JSON
object; node/tests/sdk.rs compares it with what that says.
"""

import base64
import json
import sys
from datetime import datetime, timezone

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICE = "sheaf.v1.Statistics"


class Client:
    """Knows nothing but the service's name; the rest it is told."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        database = ProtoReflectionDescriptorDatabase(self.channel)
        assert SERVICE in database.get_services(), database.get_services()
        pool = descriptor_pool.DescriptorPool(database)
        self.methods = pool.FindServiceByName(SERVICE).methods_by_name

    def call(self, name, **fields):
        method = self.methods[name]
        request = message_factory.GetMessageClass(method.input_type)
        answer = message_factory.GetMessageClass(method.output_type)
        streams = name.startswith(("List", "Follow"))
        kind = self.channel.unary_stream if streams else self.channel.unary_unary
        ask = kind(f"/{SERVICE}/{name}", request.SerializeToString, answer.FromString)
        return ask(request(**fields), timeout=30)


def plain(message):
    """The fields that are set or cannot be unset, by name."""
    fields = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            value = dict(value)
        elif field.is_repeated:
            value = [plain(v) if field.message_type else v for v in value]
        elif field.enum_type:
            prefix = {"MemberState": "MEMBER_STATE_", "SegmentState": "SEGMENT_STATE_"}
            prefix = prefix.get(field.enum_type.name, "ROLE_")
            value = field.enum_type.values_by_number[value].name[len(prefix) :].lower()
        elif field.message_type:
            is_time = field.message_type.full_name == "google.protobuf.Timestamp"
            value = value.ToJsonString() if is_time else plain(value)
        fields[field.name] = value
    return fields


def window(message):
    shown = plain(message)
    shown["window"] = {"start": shown.pop("start"), "end": shown.pop("end")}
    shown["counts"] = [count(counted) for counted in message.counts]
    return shown


def count(message):
    kind = message.value.WhichOneof("value")
    value = getattr(message.value, kind) if kind else None
    shown = {"value": value, "count": message.count}
    if kind == "bytes_value":
        shown |= {"value": base64.b64encode(value).decode(), "type": "bytes"}
    if kind == "json_value":
        shown["value"] = json.loads(value)
    return shown


def cluster(message):
    shown = plain(message)
    for name in ("cluster", "node", "leader"):
        shown[name] = shown[name] or None
    return shown


def main():
    address, count = sys.argv[1], int(sys.argv[2])
    client = Client(address)
    following = client.call("FollowWindows", after=datetime.fromtimestamp(0, timezone.utc))
    followed = [window(next(following)) for _ in range(count)]
    following.cancel()
    shown = {
        "windows": [window(message) for message in client.call("ListWindows")],
        "followed": followed,
        "ledger": plain(client.call("GetLedger")),
        "cluster": cluster(client.call("GetCluster")),
    }
    print(json.dumps(shown))


main()
