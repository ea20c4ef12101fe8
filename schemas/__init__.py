"""The formats as contracts: protobuf schemas, the config's JSON schema, and targets; data, no code."""
