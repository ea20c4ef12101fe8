"""Generate the files here that follow from others: `python schemas/compile.py`.

`*.binpb` are the .proto files as descriptor sets (needs grpcio-tools, in the extra `test`); `quant_config.schema.json`
is the JSON schema of the config's models in `amct_lite.files.config`. Run it after editing either; a test holds them
together.
"""

import json
import tempfile
from collections.abc import Iterator
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


def config_schema_file() -> bytes:
    """The contents of quant_config.schema.json."""
    from amct_lite.files.config_file import config_schema

    return (json.dumps(config_schema(), indent=2) + "\n").encode()


def generated_files() -> Iterator[tuple[Path, bytes]]:
    """Each generated file and what it shall hold."""
    for proto in sorted(FOLDER.glob("*.proto")):
        yield proto.with_suffix(".binpb"), compile_schema(proto)
    yield FOLDER / "quant_config.schema.json", config_schema_file()


if __name__ == "__main__":
    for path, contents in generated_files():
        path.write_bytes(contents)
