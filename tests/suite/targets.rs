//! The programs in `tests/targets`: built as people build theirs, started, and
//! held to what they say about themselves.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::server::{Answer, DEADLINE};

/// A way to build the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Build {
    /// `cargo build`, debug information in the binary.
    Dev,
    /// As `Dev`, with line tables and no types.
    Lines,
    /// `cargo build --release`, split debug information beside it.
    Release,
    /// Thin LTO, one codegen unit, debug information in the binary.
    Thin,
    /// The same with fat LTO.
    Fat,
    /// Some scenes on tokio 1.40.
    Old,
    /// The same with `debug = 1`: names without types.
    OldNames,
}

impl Build {
    /// Only the test command makes those that take minutes.
    pub fn wanted(self) -> bool {
        let wanted = self == Self::Dev || std::env::var_os("TASKPROF_REQUIRE_TOOLS").is_some();
        if !wanted {
            let _ =
                writeln!(std::io::stderr(), "LEFT OUT: the {self:?} targets; ./test builds them");
        }
        wanted
    }

    /// The program, built once in each run of the tests.
    pub fn program(self) -> PathBuf {
        static BUILT: Mutex<BTreeMap<Build, Arc<OnceLock<PathBuf>>>> = Mutex::new(BTreeMap::new());
        let built = {
            let mut all = BUILT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            all.entry(self).or_default().clone()
        };
        // Whoever comes second waits here rather than for cargo's lock, and whoever
        // wants another build waits for nobody: the last step of each has one thread.
        built.get_or_init(|| self.build()).clone()
    }

    fn build(self) -> PathBuf {
        let (name, profile, folder, flags) = match self {
            Self::Dev => ("targets", "dev", "debug", ""),
            Self::Lines => ("targets", "lines", "lines", ""),
            Self::Release => ("targets", "release", "release", ""),
            Self::Thin => ("targets", "thin", "thin", ""),
            Self::Fat => ("targets", "fat", "fat", ""),
            Self::Old => ("targets-old", "dev", "debug", "--cfg tokio_unstable"),
            Self::OldNames => ("targets-old", "names", "names", "--cfg tokio_unstable"),
        };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--profile", profile])
            .current_dir(&source)
            .env("CARGO_TARGET_DIR", &target)
            // Set, if empty: otherwise the flags of this repository apply.
            .env("RUSTFLAGS", flags)
            .env("CARGO_INCREMENTAL", "0")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .output()
            .expect("cargo starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{self:?}: {said}");
        target.join(folder).join(name)
    }
}

/// A target with its scene set, ended when dropped.
pub struct Target {
    child: Child,
    input: Option<ChildStdin>,
    said: Receiver<String>,
    /// Lines that it said before.
    pub preface: Vec<String>,
    /// What it says about itself.
    pub truth: Value,
}

impl Target {
    /// Sets a scene of the dev build.
    pub fn dev(scene: &str) -> Self {
        Self::start(&Build::Dev.program(), scene)
    }

    /// Starts a program and waits until its scene is set.
    pub fn start(program: &Path, scene: &str) -> Self {
        Self::start_with(program, &[&scene])
    }

    /// The same with more arguments than the scene.
    pub fn start_with(program: &Path, args: &[&dyn AsRef<std::ffi::OsStr>]) -> Self {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let (tell, said) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().expect("output"));
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        let input = child.stdin.take();
        let mut target = Self { child, input, said, preface: Vec::new(), truth: Value::Null };
        loop {
            let line = target.line();
            if line.starts_with('{') {
                target.truth = serde_json::from_str(&line).expect("the truth as JSON");
                break;
            }
            target.preface.push(line);
        }
        assert_eq!(target.line(), "ready");
        target
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn line(&self) -> String {
        self.said.recv_timeout(DEADLINE).expect("a line of the target")
    }

    /// Says a line to it and waits until all its runtimes have answered.
    pub fn ask(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input");
        writeln!(input, "{line}").and_then(|()| input.flush()).expect("it reads");
        assert_eq!(self.line(), "pong");
    }

    /// The tasks that requests for more have added, by their ids.
    pub fn grown(&mut self) -> Vec<String> {
        let input = self.input.as_mut().expect("its input");
        writeln!(input, "grown").and_then(|()| input.flush()).expect("it reads");
        let ids = serde_json::from_str(&self.line()).expect("a list of ids");
        assert_eq!(self.line(), "pong");
        ids
    }

    /// Has the process begin another program, of which no more is heard.
    pub fn become_another(&mut self) {
        let input = self.input.as_mut().expect("its input");
        writeln!(input, "become").and_then(|()| input.flush()).expect("it reads");
    }

    /// It is neither stopped nor traced, and each of its runtimes answers.
    pub fn must_be_well(&mut self) {
        let threads = self.threads();
        assert!(!threads.is_empty(), "it has threads");
        for (thread, state, tracer) in threads {
            assert!(!matches!(state, 'T' | 't'), "thread {thread} is stopped");
            assert_eq!(tracer, 0, "thread {thread} is traced");
        }
        self.ask("ping");
    }

    /// Whether any thread is stopped or traced right now.
    pub fn is_held(&self) -> bool {
        self.threads().iter().any(|(_, state, tracer)| matches!(state, 'T' | 't') || *tracer != 0)
    }

    /// Id, state letter and tracer of each thread.
    fn threads(&self) -> Vec<(String, char, u32)> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("its threads");
        let threads = tasks.filter_map(|entry| {
            let folder = entry.ok()?.path();
            // A thread may end between the listing and here.
            let status = fs::read_to_string(folder.join("status")).ok()?;
            let field =
                |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let id = folder.file_name()?.to_string_lossy().into_owned();
            Some((id, field("State:")?.chars().next()?, field("TracerPid:")?.parse().ok()?))
        });
        threads.collect()
    }

    /// Ends it and waits for its end.
    pub fn end(mut self) -> u32 {
        let pid = self.pid();
        drop(self.input.take());
        let _ = self.child.wait();
        pid
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file made from a target, for the life of a test.
pub struct Made {
    pub folder: tempfile::TempDir,
}

impl Made {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Runs a program that must succeed.
pub fn run(program: impl AsRef<Path>, args: &[&dyn AsRef<std::ffi::OsStr>]) -> String {
    let output = output(program.as_ref(), args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", program.as_ref().display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A place where nothing can be kept: no dump sees what another has read.
pub const NO_CACHE: (&str, &str) = ("XDG_CACHE_HOME", "/dev/null");

fn output(program: &Path, args: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(program);
    command.env(NO_CACHE.0, NO_CACHE.1);
    args.iter().for_each(|arg| {
        command.arg(arg);
    });
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!("{}: {error}", program.display());
    })
}

/// `taskprof ARGS`, as it went.
pub fn taskprof(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    output(Path::new(env!("CARGO_BIN_EXE_taskprof")), args)
}

/// `taskprof ARGS`, which must print JSON.
pub fn taskprof_json(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Value {
    let text = run(env!("CARGO_BIN_EXE_taskprof"), args);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:.300}"))
}

/// A dump of another process, as JSON.
pub fn dump(target: &Target, more: &[&dyn AsRef<std::ffi::OsStr>]) -> Value {
    let pid = target.pid().to_string();
    let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> =
        vec![&"dump", &"--pid", &pid, &"--format", &"json"];
    args.extend_from_slice(more);
    taskprof_json(&args)
}

/// What is wrong with another process, as JSON.
pub fn findings(target: &Target) -> Value {
    let pid = target.pid().to_string();
    taskprof_json(&[&"dump", &"--pid", &pid, &"--format", &"findings"])
}

/// `taskprof attach`, ended when dropped.
pub struct Attached {
    child: Child,
    address: std::net::SocketAddr,
}

impl Attached {
    /// Attaches to a target and waits until it serves.
    pub fn to(target: &Target) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_taskprof"))
            .args(["attach", "--http", "127.0.0.1:0", "--pid", &target.pid().to_string()])
            .env(NO_CACHE.0, NO_CACHE.1)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("taskprof starts");
        let mut lines = BufReader::new(child.stdout.take().expect("output")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("http://")?;
            rest.split('/').next()?.parse().ok()
        });
        // Keep its pipe open and empty.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.expect("it says where it serves") }
    }

    /// Asks for JSON, which must be there.
    pub fn json(&self, path: &str) -> Value {
        let answer = Answer::to(self.address, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// Asks for anything.
    pub fn get(&self, path: &str) -> Answer {
        Answer::to(self.address, path)
    }

    /// Asks for events, and reads up to the end of the first; they never end.
    pub fn first_event(&self) -> String {
        let mut socket = std::net::TcpStream::connect(self.address).expect("connect");
        socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
        let request = format!("GET /debug/events HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        socket.write_all(request.as_bytes()).expect("request");
        let mut said = String::new();
        let mut lines = BufReader::new(socket).lines();
        while !said.lines().any(|line| line.starts_with("data:")) {
            said.push_str(&lines.next().expect("an event").expect("a line"));
            said.push('\n');
        }
        said
    }

    /// Waits for its own end; its code, and what it said of it.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let status = eventually("attach ends", || {
            let ended = self.child.try_wait().expect("wait");
            ended.ok_or_else(|| "it runs".to_owned())
        });
        let mut said = String::new();
        let error = self.child.stderr.as_mut().expect("its errors");
        error.read_to_string(&mut said).expect("text");
        (status.code(), said)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Repeats until it holds; the scene may take a moment to come about.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(said) => assert!(began.elapsed() < DEADLINE, "{what}: {said}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A marked line of the targets' source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Path within the target, `src/waits.rs`.
    pub file: String,
    /// From 1.
    pub line: u64,
    /// Function that it stands in.
    pub function: String,
}

/// All marks, by name.
pub fn marks() -> &'static BTreeMap<String, Mark> {
    static MARKS: OnceLock<BTreeMap<String, Mark>> = OnceLock::new();
    MARKS.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/targets/src");
        let mut marks = BTreeMap::new();
        for entry in fs::read_dir(folder).expect("sources") {
            let path = entry.expect("entry").path();
            let file = format!("src/{}", path.file_name().expect("a name").to_string_lossy());
            let text = fs::read_to_string(&path).expect("source");
            for (name, mark) in marks_in(&file, &text) {
                let before = marks.insert(name.clone(), mark);
                assert!(before.is_none(), "the mark {name} stands twice");
            }
        }
        assert!(marks.len() > 50, "the marks are found");
        marks
    })
}

fn marks_in(file: &str, text: &str) -> Vec<(String, Mark)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut marks = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let (name, at) = match (line.split_once("// MARK: "), line.split_once("// NEXT: ")) {
            (Some((_, name)), _) => (name, index),
            (None, Some((_, name))) => (name, index + 1),
            (None, None) => continue,
        };
        if line.trim_start().starts_with("//!") {
            continue;
        }
        let function = lines[..=at].iter().rev().find_map(|line| {
            let (_, rest) = line.split_once("fn ")?;
            let end = rest.find(['(', '<'])?;
            Some(rest[..end].to_owned())
        });
        let mark = Mark {
            file: file.to_owned(),
            line: at as u64 + 1,
            function: function.unwrap_or_else(|| panic!("{file}: {name} stands in a function")),
        };
        marks.push((name.trim().to_owned(), mark));
    }
    marks
}

#[test]
fn marks_know_their_line_and_function() {
    let text = "async fn one() {\n    f().await; // MARK: a\n}\n// NEXT: b\nfn two<T>() {}\n";
    let found = marks_in("src/x.rs", text);
    let expected = [("a", 2, "one"), ("b", 5, "two")].map(|(name, line, function)| {
        let function = function.to_owned();
        (name.to_owned(), Mark { file: "src/x.rs".to_owned(), line, function })
    });
    assert_eq!(found, expected);
}
