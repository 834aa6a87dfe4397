//! A real `taskprof` process under test, and plain HTTP to it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Once, mpsc};
use std::time::{Duration, Instant};

/// How long anything may take that should take a moment. Far above what it
/// needs: only a failing test waits this long.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A running `taskprof`, ended when dropped.
pub struct Server {
    child: Child,
    /// Where it serves gRPC.
    pub grpc: SocketAddr,
    /// Where it serves HTTP.
    pub http: SocketAddr,
    /// Where tokio-console attaches.
    pub console: SocketAddr,
}

/// The program, with its layouts saved beside it: without optimisation it
/// takes seconds to read its own debug information, at every start.
/// `dump_*.rs` hold what is read from DWARF.
pub fn indexed() -> &'static str {
    static INDEXED: Once = Once::new();
    let program = env!("CARGO_BIN_EXE_taskprof");
    INDEXED.call_once(|| {
        let done = Command::new(program).args(["index", program]).output().expect("index");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    });
    program
}

impl Server {
    /// Starts `taskprof COMMAND ...` on free ports.
    pub fn start(command: &[&str]) -> Self {
        Self::of(indexed().as_ref(), command, "127.0.0.1:0")
    }

    /// The same with what it says on stderr kept in a file.
    pub fn logging(command: &[&str], log: File) -> Self {
        let mut program = Command::new(indexed());
        program.env_remove("RUST_LOG").stderr(log);
        Self::run(program, command, "127.0.0.1:0")
    }

    /// Starts another build of the program, with what it is to do for
    /// tokio-console.
    pub fn of(program: &Path, command: &[&str], console: &str) -> Self {
        Self::run(Command::new(program), command, console)
    }

    fn run(mut program: Command, command: &[&str], console: &str) -> Self {
        let mut child = program
            .args(command)
            .args(["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--console", console])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("taskprof starts");
        let out = child.stdout.take().expect("its output");
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let words: Vec<&str> = line.split_whitespace().collect();
                if let [name, "listening", "on", address] = words[..] {
                    let _ = tell.send((name.to_owned(), address.parse().expect("an address")));
                }
            }
        });
        let address = |wanted: &str| -> SocketAddr {
            let (name, address) = told.recv_timeout(DEADLINE).expect("it says where it listens");
            assert_eq!(name, wanted);
            address
        };
        let (grpc, http, console) = (address("grpc"), address("http"), address("console"));
        Self { child, grpc, http, console }
    }

    /// The reference server with faults.
    pub fn with_faults(more: &[&str]) -> Self {
        Self::start(&[&["serve", "--faults"], more].concat())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has read its debug information: until then, stacks have
    /// no names, and a dump waits for them for up to two seconds.
    pub fn warmed(self) -> Self {
        let threads = format!("/proc/{}/task", self.pid());
        let reads = || {
            let threads = std::fs::read_dir(&threads).expect("it runs").flatten();
            let mut names = threads.map(|thread| std::fs::read(thread.path().join("comm")));
            names.any(|name| name.is_ok_and(|name| name == b"taskprof-warm\n"))
        };
        let began = Instant::now();
        while reads() {
            assert!(began.elapsed() < 2 * DEADLINE, "it still reads its debug information");
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    /// The address of a page.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// Asks for a page.
    pub fn get(&self, path: &str) -> Answer {
        Answer::to(self.http, path)
    }

    /// Asks for JSON, which must be there.
    pub fn json(&self, path: &str) -> serde_json::Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// Asks for JSON until it is as wanted, and returns it.
    pub fn wait_for(
        &self,
        path: &str,
        what: &str,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let began = Instant::now();
        loop {
            let json = self.json(path);
            if wanted(&json) {
                return json;
            }
            assert!(began.elapsed() < DEADLINE, "no {what} at {path}:\n{json:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Traffic against it, from another process.
    pub fn load(&self, scenario: &str, more: &[&str]) -> Load {
        let grpc = self.grpc.to_string();
        let child = Command::new(env!("CARGO_BIN_EXE_taskprof"))
            .args(["load", "--scenario", scenario, "--grpc", &grpc])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("load starts");
        Load(child)
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(status.expect("kill").success());
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(began.elapsed() < DEADLINE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Client traffic in a process of its own, ended when dropped.
pub struct Load(Child);

impl Load {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: Vec<u8>,
    /// From the request to the last byte.
    pub took: Duration,
}

impl Answer {
    /// Asks with nothing but the request line and a Host, as curl would.
    pub fn to(address: SocketAddr, path: &str) -> Self {
        Self::of(address, "GET", path)
    }

    /// The same with another method, and no body.
    pub fn of(address: SocketAddr, method: &str, path: &str) -> Self {
        Self::ask(address, method, path).expect("answer")
    }

    /// The same where the connection may be refused or cut off.
    pub fn ask(address: SocketAddr, method: &str, path: &str) -> std::io::Result<Self> {
        let began = Instant::now();
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        let request = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        socket.write_all(request.as_bytes())?;
        let mut raw = Vec::new();
        socket.read_to_end(&mut raw)?;
        let end = raw.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let headers = String::from_utf8_lossy(&raw[..end]).into_owned();
        let status = headers.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("status");
        Ok(Self { status, headers, body: raw.split_off(end + 4), took: began.elapsed() })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A program that the test command installs. Where it is missing the test is
/// left out, loudly; under the test command that is a failure.
pub fn tool(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        std::env::split_paths(&path).chain([tools_folder().join("bin")]).collect();
    let found = names.iter().find_map(|name| {
        let absolute = PathBuf::from(name);
        if absolute.is_absolute() {
            return absolute.exists().then_some(absolute);
        }
        folders.iter().map(|folder| folder.join(name)).find(|file| file.exists())
    });
    if found.is_none() {
        assert!(
            std::env::var_os("TASKPROF_REQUIRE_TOOLS").is_none(),
            "{names:?} is missing; the test command installs it"
        );
        // Not through `eprintln!`, which the test runner would swallow.
        let _ = writeln!(std::io::stderr(), "LEFT OUT: {names:?} is missing; ./test installs it");
    }
    found
}

/// Where the test command puts what it installs.
pub fn tools_folder() -> PathBuf {
    std::env::var_os("TASKPROF_TOOLS").map_or_else(
        || {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_default())
                .join(".cache/taskprof-tools")
        },
        PathBuf::from,
    )
}
