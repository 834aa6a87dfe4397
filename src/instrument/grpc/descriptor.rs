//! Kinds of methods from a service's descriptors, which generated code ships
//! as `FILE_DESCRIPTOR_SET` bytes. The wire itself does not tell them.

use prost::Message;

use crate::error::{Error, ErrorKind, Result};
use crate::model::StreamKind;
use crate::registry::Registry;

// The few fields of google/protobuf/descriptor.proto that name a method; prost
// skips the others. The field numbers are that file's.

#[derive(Clone, PartialEq, Message)]
struct FileSet {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<Method>,
}

#[derive(Clone, PartialEq, Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "5")]
    client_streaming: bool,
    #[prost(bool, tag = "6")]
    server_streaming: bool,
}

/// Declares the methods of an encoded `FileDescriptorSet`; returns how many.
///
/// # Errors
/// `Malformed` if the bytes are none.
pub(crate) fn declare(registry: &Registry, descriptor_set: &[u8]) -> Result<usize> {
    let set = FileSet::decode(descriptor_set).map_err(|error| {
        Error::new(ErrorKind::Malformed, "not a protobuf FileDescriptorSet").with_source(error)
    })?;
    let mut declared = 0;
    for file in &set.files {
        let dot = if file.package.is_empty() { "" } else { "." };
        for service in &file.services {
            for method in &service.methods {
                let kind = match (method.client_streaming, method.server_streaming) {
                    (false, false) => StreamKind::Unary,
                    (true, false) => StreamKind::ClientStreaming,
                    (false, true) => StreamKind::ServerStreaming,
                    (true, true) => StreamKind::Bidi,
                };
                let path = format!("/{}{dot}{}/{}", file.package, service.name, method.name);
                registry.streams.declare(&path, kind);
                declared += 1;
            }
        }
    }
    Ok(declared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_from_the_descriptors() {
        let source = "syntax = \"proto3\"; package a.b; message M {}
            service S {
              rpc U(M) returns (M); rpc C(stream M) returns (M);
              rpc V(M) returns (stream M); rpc B(stream M) returns (stream M);
            }";
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("s.proto"), source).unwrap();
        let set = protox::compile(["s.proto"], [dir.path()]).unwrap();
        let registry = Registry::default();
        assert_eq!(declare(&registry, &set.encode_to_vec()).unwrap(), 4);
        let kind = |path| {
            let begin = crate::registry::streams::Begin {
                side: crate::model::Side::Server,
                path,
                connection: None,
                endpoint: None,
                span: None,
                peer: None,
                timeout: None,
                metadata: Default::default(),
            };
            registry.streams.begin(begin).method().kind()
        };
        assert_eq!(kind("/a.b.S/U"), StreamKind::Unary);
        assert_eq!(kind("/a.b.S/C"), StreamKind::ClientStreaming);
        assert_eq!(kind("/a.b.S/V"), StreamKind::ServerStreaming);
        assert_eq!(kind("/a.b.S/B"), StreamKind::Bidi);
        assert_eq!(kind("/a.b.S/X"), StreamKind::Unknown);
        assert_eq!(declare(&registry, b"\xff\xff").unwrap_err().kind(), ErrorKind::Malformed);
    }
}
