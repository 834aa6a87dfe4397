//! The examples do what their first lines say.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::server::{Answer, DEADLINE};

/// An example, built as this test was: beside it, two folders up.
fn program(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    let this = std::env::current_exe().expect("this program");
    let folder = this.parent().and_then(|deps| deps.parent()).expect("target/debug").to_owned();
    BUILT.call_once(|| {
        let release = (!cfg!(debug_assertions)).then_some("--release");
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "--quiet", "--examples", "--target-dir"])
            .arg(folder.parent().expect("target"))
            .args(release)
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        // What cargo tells this test of its own package. A build script that asks
        // for it would run again, and all that depends on it be built anew.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(name);
            }
        }
        let output = cargo.output().expect("cargo starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    folder.join("examples").join(name)
}

/// A running example, ended when dropped.
struct Example {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Example {
    fn start(name: &str, args: &[&str]) -> Self {
        let mut child = Command::new(program(name))
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let out = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, out }
    }

    /// The address in the next line, which begins with `word`.
    fn address(&mut self, word: &str) -> SocketAddr {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        assert!(line.starts_with(word), "{line:?}");
        let last = line.split_whitespace().last().expect("words");
        let address = last.trim_start_matches("http://").split('/').next().expect("an address");
        address.parse().unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    /// Reads on until it has said all it says at its start.
    fn is_ready(&mut self) {
        let mut line = String::new();
        while !line.starts_with("Ctrl-C ends it.") {
            line.clear();
            assert!(self.out.read_line(&mut line).expect("a line") > 0, "it has ended");
        }
    }

    /// Ends it as Ctrl-C does.
    fn interrupt(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return assert!(status.success(), "{status}");
            }
            assert!(began.elapsed() < DEADLINE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The streams at an address, once there are so many.
fn streams(http: SocketAddr, wanted: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let answer = Answer::to(http, "/debug/streams");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let json: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let streams = json["streams"].as_array().expect("streams");
        if streams.len() == wanted {
            return streams.clone();
        }
        assert!(began.elapsed() < DEADLINE, "no {wanted} streams: {json:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Each server with the client at it: both ends see the three streams.
#[test]
fn the_servers_and_the_client_see_each_other() {
    for (server, addresses) in
        [("embed", &["127.0.0.1:0"; 3][..]), ("layer", &["127.0.0.1:0"; 2][..])]
    {
        let mut served = Example::start(server, addresses);
        let (grpc, http) = (served.address("gRPC"), served.address("dashboard"));
        served.is_ready();
        let mut client = Example::start("client", &[&grpc.to_string(), "127.0.0.1:0"]);
        let http_of_client = client.address("dashboard");
        client.is_ready();
        for (http, side) in [(http, "server"), (http_of_client, "client")] {
            for stream in streams(http, 3) {
                assert_eq!(stream["side"], side, "{server}: {stream:#}");
                assert_eq!(stream["method"], "/grpc.health.v1.Health/Watch", "{stream:#}");
            }
            assert_eq!(Answer::to(http, "/").status, 200, "{server}: the dashboard");
        }
        client.interrupt();
        served.interrupt();
    }
}
