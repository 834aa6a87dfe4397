//! The stage: spawns the cast, keeps what is known of each, and tells it.

use std::future::Future;
use std::io::{BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::{Builder, Handle};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Longer than any test: a sleep of this length is a wait that does not end.
pub const HOUR: Duration = Duration::from_secs(3600);

/// What is true of a task once the scene holds still.
pub struct Role {
    name: &'static str,
    truth: Value,
}

/// A task of this name that waits at the mark of the same name.
pub fn role(name: &'static str) -> Role {
    Role {
        name,
        truth: json!({"name": name, "path": [name], "arms": [], "dormant": [], "holds": [], "state": "idle"}),
    }
}

impl Role {
    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.truth[key] = value.into();
        self
    }

    /// The kind of its wait.
    pub fn waits(self, kind: &'static str) -> Self {
        self.with("wait", kind)
    }

    /// The name of what it waits for: equal names are one resource.
    pub fn on(self, resource: impl Into<String>) -> Self {
        self.with("resource", resource.into())
    }

    /// Marks of the program's own frames, innermost first; `fn:name` where
    /// only the function is certain, as in a macro's own await.
    pub fn path(self, marks: &[&'static str]) -> Self {
        self.with("path", marks)
    }

    /// Things awaited at once, each as a path that ends where they meet; the
    /// common rest is in `path`.
    pub fn arms(self, arms: &[&[&'static str]]) -> Self {
        self.with("arms", json!(arms))
    }

    /// Futures that the task keeps and does not poll, each as its path down to
    /// where it leaves the task's own.
    pub fn dormant(self, kept: &[&[&'static str]]) -> Self {
        self.with("dormant", json!(kept))
    }

    /// A guard or sender in a local variable of the function with this mark.
    pub fn holds(mut self, kind: &str, resource: &str, local: &str, mark: &str) -> Self {
        let hold = json!({
            "kind": kind, "resource": resource, "local": local, "mark": mark, "dormant": false,
        });
        self.truth["holds"].as_array_mut().expect("a list").push(hold);
        self
    }

    /// As `holds`, in a future that the task keeps and does not poll.
    pub fn keeps(mut self, kind: &str, resource: &str, local: &str, mark: &str) -> Self {
        self = self.holds(kind, resource, local, mark);
        let holds = self.truth["holds"].as_array_mut().expect("a list");
        holds.last_mut().expect("just pushed")["dormant"] = true.into();
        self
    }

    /// The task whose end it waits for.
    pub fn joins(self, name: &'static str) -> Self {
        self.with("joins", name)
    }

    /// Length of the queue it stands in.
    pub fn queue(self, length: u64) -> Self {
        self.with("queue", length)
    }

    /// It has a deadline an hour from its begin.
    pub fn deadline(self) -> Self {
        self.with("deadline", true)
    }

    /// The socket it waits for.
    pub fn socket(self, fd: i32, local: impl ToString, peer: Option<String>) -> Self {
        self.with("fd", fd).with("local", local.to_string()).with("peer", peer)
    }

    /// It never waits: `running`.
    pub fn running(self) -> Self {
        self.with("state", "running")
    }

    /// What it waits for is not to be compared.
    pub fn restless(self) -> Self {
        self.with("state", Value::Null)
    }
}

/// The cast and what is known of it.
pub struct Stage {
    handles: Vec<Handle>,
    cast: Vec<Value>,
    findings: Vec<Value>,
    local: usize,
    restless: bool,
    more: Option<Grow>,
    grown: Vec<String>,
}

/// What a request for more does, on the runtime: the tasks that it adds.
pub type Grow = Box<dyn Fn() -> Vec<tokio::task::Id> + Send>;

impl Stage {
    /// A stage on this runtime.
    pub fn new(handle: Handle) -> Self {
        Self {
            handles: vec![handle],
            cast: Vec::new(),
            findings: Vec::new(),
            local: 0,
            restless: false,
            more: None,
            grown: Vec::new(),
        }
    }

    /// Spawns a task on the runtime this is called on.
    pub fn spawn<F>(&mut self, role: Role, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let task = tokio::spawn(future);
        self.cast(role, &task);
        task
    }

    /// Takes a task that was spawned otherwise into the cast.
    pub fn cast<T>(&mut self, role: Role, task: &JoinHandle<T>) {
        self.enter(role, task.id());
    }

    /// The same by its id.
    pub fn enter(&mut self, role: Role, id: tokio::task::Id) {
        let Role { name, mut truth } = role;
        assert!(self.cast.iter().all(|other| other["name"] != name), "two roles are named {name}");
        truth["id"] = id.to_string().into();
        self.cast.push(truth);
    }

    /// One of many tasks that share a role.
    pub fn enter_one_of_many(&mut self, role: Role, id: tokio::task::Id) {
        let mut truth = role.truth;
        truth["name"] = format!("{} {}", role.name, self.cast.len()).into();
        truth["id"] = id.to_string().into();
        self.cast.push(truth);
    }

    /// A task of a `LocalSet`, which the runtime's own count leaves out.
    pub fn cast_local<T>(&mut self, role: Role, task: &JoinHandle<T>) {
        self.cast(role, task);
        self.local += 1;
    }

    /// Tasks of a `LocalSet` that are alive and not in the cast.
    pub fn local_unnamed(&mut self, count: usize) {
        self.local += count;
    }

    /// Another runtime in the process, with its cast.
    pub fn join(&mut self, other: Stage) {
        self.handles.extend(other.handles);
        self.cast.extend(other.cast);
        self.local += other.local;
    }

    /// What a report on this scene must find. What is not said must not be found.
    pub fn finding(&mut self, kind: &str, tasks: &[&str]) {
        self.findings.push(json!({"kind": kind, "tasks": tasks}));
    }

    /// Its tasks never rest: do not wait for it.
    pub fn restless(&mut self) {
        self.restless = true;
    }

    /// What a request for more does.
    pub fn on_more(&mut self, grow: Grow) {
        self.more = Some(grow);
    }

    fn alive(&self) -> usize {
        let counts = self.handles.iter().map(|handle| handle.metrics().num_alive_tasks());
        counts.sum::<usize>() + self.local
    }

    /// Tells the truth, then serves requests until the input ends. Runs on a
    /// thread of its own, so that no task of the scene is concerned.
    fn tell(mut self) -> ! {
        while !self.restless && !quiet() {}
        let truth = json!({
            "pid": std::process::id(),
            "alive": self.alive(),
            "tasks": self.cast,
            "findings": self.findings,
        });
        println!("{truth}\nready");
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if let ("more", Some(grow)) = (line.as_str(), &self.more) {
                let _guard = self.handles[0].enter();
                self.grown.extend(grow().iter().map(ToString::to_string));
            }
            if line == "become" {
                let error = std::process::Command::new("sleep").arg("1000").exec();
                panic!("it begins no other program: {error}");
            }
            if line == "grown" {
                println!("{}", json!(self.grown));
            }
            let (tell, told) = mpsc::channel();
            for handle in &self.handles {
                let tell = tell.clone();
                handle.spawn(async move { tell.send(()) });
            }
            let all =
                self.handles.iter().all(|_| told.recv_timeout(Duration::from_secs(20)).is_ok());
            println!("{}", if all { "pong" } else { "a runtime does not answer" });
            let _ = std::io::stdout().flush();
        }
        std::process::exit(0)
    }
}

/// No other thread of the process has run for a while: whatever could happen
/// has happened. tokio's own counters would tell the same, but not in every
/// version.
fn quiet() -> bool {
    let before = switches();
    std::thread::sleep(Duration::from_millis(20));
    before.is_some() && before == switches()
}

/// How often each other thread has run; `None` if one is running now.
fn switches() -> Option<Vec<(String, String)>> {
    let own = std::fs::read_link("/proc/thread-self").ok()?;
    let mut counts = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task").ok()? {
        let folder = entry.ok()?.path();
        // A watchdog that ticks is never quiet.
        let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
        if folder.file_name() == own.file_name() || name.starts_with("taskprof") {
            continue;
        }
        let status = std::fs::read_to_string(folder.join("status")).ok()?;
        if !status.lines().any(|line| line.starts_with("State:\tS")) {
            return None;
        }
        let runs = status.lines().filter(|line| line.contains("ctxt_switches"));
        counts.push((folder.display().to_string(), runs.collect()));
    }
    Some(counts)
}

/// Sets a scene on a multi-thread runtime with two workers.
pub fn multi_thread(play: impl AsyncFnOnce(&mut Stage)) {
    stay(Builder::new_multi_thread().worker_threads(2), play);
}

/// Sets a scene on a current-thread runtime.
pub fn current_thread(play: impl AsyncFnOnce(&mut Stage)) {
    stay(&mut Builder::new_current_thread(), play);
}

fn stay(builder: &mut Builder, play: impl AsyncFnOnce(&mut Stage)) {
    let runtime = builder.enable_all().build().expect("runtime");
    let mut stage = Stage::new(runtime.handle().clone());
    runtime.block_on(async {
        play(&mut stage).await;
        curtain(stage).await
    });
}

/// Tells the truth from another thread while this one goes on polling.
pub async fn curtain(stage: Stage) -> ! {
    std::thread::spawn(move || stage.tell());
    std::future::pending().await
}

/// Lets others run until something is so.
pub async fn until(so: impl Fn() -> bool) {
    while !so() {
        tokio::task::yield_now().await;
    }
}

/// Lets as many pass as it was told to, however early: a `Notify` remembers
/// one only.
pub struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl Gate {
    pub fn let_one_pass(&self) {
        self.0.add_permits(1);
    }

    pub async fn pass(&self) {
        self.0.acquire().await.expect("never closed").forget();
    }
}
