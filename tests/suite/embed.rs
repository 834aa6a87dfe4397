//! taskprof inside somebody else's server, built as that somebody would, with
//! and without `--cfg tokio_unstable`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::Value;

use super::server::{Answer, DEADLINE};

/// Both builds take minutes from scratch, so only the test command does them.
fn wanted() -> bool {
    let wanted = std::env::var_os("TASKPROF_REQUIRE_TOOLS").is_some();
    if !wanted {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "LEFT OUT: the embedding crate; ./test builds it");
    }
    wanted
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).expect("folder") {
        let path = entry.expect("entry").path();
        let copied = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy(&path, &copied) } else { drop(fs::copy(&path, &copied)) }
    }
}

/// The two ways to build it.
const UNSTABLE: &str = "--cfg tokio_unstable";
const STABLE: &str = "";

/// A folder with the crate's programs, built once in each run of the tests.
fn built(flags: &'static str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    // One build at a time: both use one target folder.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(flags).or_insert_with(|| build(flags)).clone()
}

/// Builds the crate in a folder of its own, outside of this one.
fn build(flags: &str) -> PathBuf {
    let folder = tempfile::tempdir().expect("folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = root.join("tests/embed");
    // It borrows scenes from its neighbour.
    copy(&root.join("tests/targets/src"), &folder.path().join("targets/src"));
    let own = folder.path().join("embed");
    copy(&source.join("src"), &own.join("src"));
    let manifest = fs::read_to_string(source.join("Cargo.toml")).expect("manifest");
    let here = format!("path = {:?}", root.display().to_string());
    fs::write(own.join("Cargo.toml"), manifest.replace("path = \"../..\"", &here)).expect("copy");
    // The versions that everything else is tested with.
    fs::copy(root.join("Cargo.lock"), own.join("Cargo.lock")).expect("lock file");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("embed");
    let output = Command::new(env!("CARGO"))
        .arg("build")
        .current_dir(&own)
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", flags)
        // Variables of the outer build that would leak into this one.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .expect("cargo starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("warning: unused"), "{said}");
    // To where the build with other flags does not replace them.
    let kept = target.join(if flags == UNSTABLE { "unstable" } else { "stable" });
    fs::create_dir_all(&kept).expect("folder");
    for program in ["embed", "scenes"] {
        // A new file: the last run's may still be what something runs.
        let _ = fs::remove_file(kept.join(program));
        fs::copy(target.join("debug").join(program), kept.join(program)).expect("copy");
    }
    kept
}

/// The scenes of `tests/targets` with taskprof in them.
pub fn scenes() -> Option<PathBuf> {
    wanted().then(|| built(UNSTABLE).join("scenes"))
}

/// The same without tokio's hooks.
pub fn scenes_without_hooks() -> Option<PathBuf> {
    wanted().then(|| built(STABLE).join("scenes"))
}

struct Running(Child, SocketAddr);

impl Running {
    fn start(program: &Path) -> Self {
        let mut child =
            Command::new(program).stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("output")).lines();
        let line = lines.next().expect("a line").expect("text");
        let http = line.rsplit(' ').next().and_then(|text| text.parse().ok()).expect("address");
        // Keep its pipe open and empty.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child, http)
    }

    fn json(&self, path: &str) -> Value {
        let answer = Answer::to(self.1, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// Its one stream, once it is there.
    fn stream(&self) -> Value {
        let began = Instant::now();
        loop {
            let json = self.json("/debug/streams");
            if let Some(stream) = json["streams"].as_array().and_then(|all| all.first()) {
                return stream.clone();
            }
            assert!(began.elapsed() < DEADLINE, "no stream: {json:#}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn three_lines_embed_it_with_and_without_tokio_unstable() {
    if !wanted() {
        return;
    }
    let running = Running::start(&built(UNSTABLE).join("embed"));
    let stream = running.stream();
    assert_eq!(stream["method"], "/grpc.health.v1.Health/Watch");
    let tasks = running.json("/debug/tasks?group=none");
    let coverage = &tasks["coverage"];
    assert_eq!(coverage["listed"], coverage["alive"], "{coverage:#}");
    assert!(coverage["listed"].as_u64().is_some_and(|listed| listed >= 3), "{coverage:#}");
    drop(running);

    // Without the cfg tokio has no hooks: the streams are there all the same,
    // and what is missing is named.
    let running = Running::start(&built(STABLE).join("embed"));
    assert_eq!(running.stream()["method"], "/grpc.health.v1.Health/Watch");
    let tasks = running.json("/debug/tasks?group=none");
    let coverage = &tasks["coverage"];
    assert!(coverage["alive"].as_u64().is_some_and(|alive| alive >= 3), "{coverage:#}");
    let missing = coverage["missing"].as_array().expect("a list");
    let reason = missing.iter().find(|missing| missing["reason"] == "no_tokio_unstable");
    assert_eq!(
        reason.expect("it is said")["count"].as_u64().expect("a count"),
        coverage["alive"].as_u64().expect("a count") - coverage["listed"].as_u64().expect("count"),
        "{coverage:#}"
    );
    let findings = running.json("/debug/findings");
    let unavailable = findings["checked"].as_array().expect("a list").iter();
    assert!(
        unavailable.into_iter().any(|check| check["unavailable"].is_string()),
        "what could not be looked for is said: {findings:#}"
    );
}
