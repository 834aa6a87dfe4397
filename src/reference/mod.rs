//! The reference gRPC server, its traffic and its faults.
