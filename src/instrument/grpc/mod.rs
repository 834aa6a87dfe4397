//! Per-stream gRPC state: tower layers, body wrappers, the accept loop.
