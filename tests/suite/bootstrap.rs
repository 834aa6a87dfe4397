//! The code in `src/pb` is what the files in `proto/` generate.
//!
//! `TASKPROF_REGENERATE=1 cargo test --test integration bootstrap` writes it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;

const SERVICES: &[&str] = &[
    "grpc/channelz/v1/channelz.proto",
    "grpc/examples/echo/echo.proto",
    "grpc/testing/test.proto",
    "taskprof/heartbeat/v1/heartbeat.proto",
    "taskprof/lab/v1/lab.proto",
];
/// Part of the library: generated without what needs tonic's transport.
const LIBRARY: &[&str] =
    &["grpc/channelz/v1/channelz.proto", "taskprof/heartbeat/v1/heartbeat.proto"];
const MESSAGES: &[&str] = &["perftools/profiles/profile.proto"];
const DESCRIPTORS: &str = "services.bin";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// File name and content of everything that is generated.
fn generate() -> BTreeMap<String, Vec<u8>> {
    let out = tempfile::tempdir().expect("a temporary directory");
    let include = [root().join("proto")];
    let services = protox::compile(SERVICES, &include).expect("the services compile");
    let messages = protox::compile(MESSAGES, &include).expect("the messages compile");

    // Source info makes comments; reflection has no use for it.
    let mut bare = services.clone();
    for file in &mut bare.file {
        file.source_code_info = None;
    }
    fs::write(out.path().join(DESCRIPTORS), bare.encode_to_vec()).expect("descriptors");

    let library = protox::compile(LIBRARY, &include).expect("the library's services compile");
    // The last one overwrites what the first made of the same package.
    for (set, transport) in [(services, true), (messages, true), (library, false)] {
        tonic_prost_build::configure()
            .out_dir(out.path())
            .build_transport(transport)
            .bytes(".grpc.testing")
            .bytes(".taskprof.lab.v1")
            .compile_fds(set)
            .expect("the generator runs");
    }
    fs::read_dir(out.path())
        .expect("generated files")
        .map(|entry| {
            let path = entry.expect("a directory entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("a generated file"))
        })
        .collect()
}

fn differs(path: &Path, content: &[u8]) -> bool {
    fs::read(path).map_or(true, |present| present != content)
}

#[test]
fn generated_code_is_fresh() {
    let target = root().join("src/pb");
    let generated = generate();
    assert_eq!(generated.len(), 7, "six packages and the descriptors: {:?}", generated.keys());
    let stale: Vec<&String> = generated
        .iter()
        .filter(|(name, content)| differs(&target.join(name), content))
        .map(|(name, _)| name)
        .collect();
    if std::env::var_os("TASKPROF_REGENERATE").is_some() {
        for name in &stale {
            fs::write(target.join(name), &generated[*name]).expect("src/pb is writable");
        }
        return;
    }
    assert!(
        stale.is_empty(),
        "not what proto/ generates: {stale:?}; run \
         TASKPROF_REGENERATE=1 cargo test --test integration bootstrap"
    );
    // A package that was removed from proto/ must not live on.
    for entry in fs::read_dir(&target).expect("src/pb") {
        let name = entry.expect("a directory entry").file_name().to_string_lossy().into_owned();
        assert!(
            name == "mod.rs" || generated.contains_key(&name),
            "src/pb/{name} is not generated from proto/"
        );
    }
}
