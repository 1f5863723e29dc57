"""What schemathesis does not know by itself: bodies of bytes."""

import schemathesis


@schemathesis.serializer("application/x-protobuf", "application/grpc")
def as_bytes(_context, value):
    data = getattr(value, "data", value)
    return data if isinstance(data, bytes) else str(data).encode("utf-8", "replace")
