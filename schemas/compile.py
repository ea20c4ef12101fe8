"""Compile every schema here to a descriptor set: `python schemas/compile.py` (needs grpcio-tools, in the extra `test`).

Run it after editing a .proto file; a test holds the two together.
"""

import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent


def compile_schema(proto: Path) -> bytes:
    """The serialized FileDescriptorSet of a .proto file."""
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.binpb"
        status = protoc.main(["protoc", f"-I{proto.parent}", f"--descriptor_set_out={out}", proto.name])
        if status != 0:
            raise SystemExit(f"protoc failed on {proto}")
        return out.read_bytes()


if __name__ == "__main__":
    for source in sorted(FOLDER.glob("*.proto")):
        source.with_suffix(".binpb").write_bytes(compile_schema(source))
