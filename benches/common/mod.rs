//! What the benches share: roles, figures of a process, medians, verdicts.
//!
//! Each figure comes from a process of its own, so that no state of one kind
//! is left to the next: a bench runs its own program again in another role.
//! With `TASKPROF_BENCH_QUICK=1` a bench takes seconds and proves that it
//! runs; its figures are rough then.
#![allow(dead_code)] // each bench uses a part

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Whether to be quick rather than exact.
pub fn quick() -> bool {
    std::env::var_os("TASKPROF_BENCH_QUICK").is_some_and(|value| !value.is_empty() && value != "0")
}

/// One of two settings.
pub fn either<T>(exact: T, rough: T) -> T {
    if quick() { rough } else { exact }
}

/// The first line: what runs where, and how much to believe it.
pub fn headline(what: &str) {
    println!("{what}");
    if quick() {
        println!("quick: few and short rounds, the figures are rough");
    }
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    if load > 0.5 {
        println!("this machine does other work too (load {load:.1}): the spread tells how much");
    }
}

/// Milliseconds in which the machine writes to 64 MiB of new memory. Figures in
/// absolute time, of two runs, can be compared where this is alike: a virtual
/// machine's neighbours make it two and three times as long.
pub fn pace() -> f64 {
    let once = || {
        let begun = Instant::now();
        std::hint::black_box(vec![1_u8; 64 << 20]);
        begun.elapsed().as_secs_f64() * 1e3
    };
    median((0..9).map(|_| once()).collect())
}

/// The median of some figures; 0 of none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => 0.0,
        n if n % 2 == 1 => figures[n / 2],
        n => (figures[n / 2 - 1] + figures[n / 2]) / 2.0,
    }
}

/// Smallest and largest.
pub fn spread(figures: &[f64]) -> (f64, f64) {
    figures.iter().fold((f64::MAX, f64::MIN), |(low, high), f| (low.min(*f), high.max(*f)))
}

/// The word for a goal.
pub fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

/// A whole number with commas.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// User and system time of all threads of a process, in nanoseconds. A thread
/// that runs is accounted at its next tick, so ask when it sleeps; and a thread
/// that has ended takes its time with it.
pub fn cpu_ns(pid: &str) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let times = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    times.sum()
}

/// The same of this process. Sleeps for a moment, so that the calling thread's
/// own time is complete.
pub fn own_cpu_ns() -> u64 {
    std::thread::sleep(Duration::from_millis(1));
    cpu_ns("self")
}

/// CPU time of the calling thread so far, in nanoseconds; complete while it runs.
pub fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one `timespec`, which is ours.
    #[allow(unsafe_code)]
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(failed, 0, "no clock of this thread");
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// A figure of `/proc/PID/status` in bytes: `VmRSS` is resident memory now,
/// `VmHWM` its peak.
pub fn memory(pid: &str, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("known figure");
    let kib: u64 = line.split_whitespace().nth(1).expect("figure").parse().expect("number");
    kib * 1024
}

/// Resident bytes of this process, counted page by page: the figure in `status`
/// is summed up lazily.
pub fn resident() -> u64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").expect("Linux");
    let line = rollup.lines().find(|line| line.starts_with("Rss:")).expect("resident memory");
    let kib: u64 =
        line.split_whitespace().nth(1).and_then(|figure| figure.parse().ok()).expect("number");
    kib * 1024
}

/// Keeps this process to pages of 4 KiB: of a huge one all is resident, whether
/// used or not, which makes memory a matter of luck.
pub fn no_huge_pages() {
    // SAFETY: sets a flag of the process, and touches no memory.
    #[allow(unsafe_code)]
    let refused = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    assert_eq!(refused, 0, "cannot turn huge pages off");
}

/// Lets the peak of resident memory begin anew. False if the kernel does not
/// allow it.
pub fn forget_peak(pid: &str) -> bool {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok()
}

/// Waits until the profiler's own start is over: it reads debug information in
/// the background, once, which is no part of what a task or a message costs.
pub fn settle() {
    let deadline = Instant::now() + Duration::from_secs(120);
    let warming = || {
        fs::read_dir("/proc/self/task").expect("proc").any(|thread| {
            let name = thread.ok().and_then(|thread| fs::read(thread.path().join("comm")).ok());
            name.is_some_and(|name| name.starts_with(b"taskprof-warm"))
        })
    };
    while warming() {
        assert!(Instant::now() < deadline, "the profiler does not finish its start");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The role given on the command line, if any. `cargo bench` adds `--bench`.
pub fn role() -> Option<(String, Vec<String>)> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let role = args.next()?;
    Some((role, args.collect()))
}

/// Runs this very program in another role to its end; returns what it prints.
pub fn again(role: &str, args: &[&str]) -> String {
    let output =
        command(None).arg(role).args(args).stderr(Stdio::inherit()).output().expect("run again");
    assert!(output.status.success(), "role {role} failed: {}", output.status);
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// Whether processes can be bound to a CPU each: there are two, and `taskset`.
pub fn can_pin() -> bool {
    let two = std::thread::available_parallelism().is_ok_and(|n| n.get() >= 2);
    two && std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join("taskset").exists())
    })
}

fn command(cpu: Option<usize>) -> Command {
    let exe = std::env::current_exe().expect("own path");
    match cpu {
        Some(cpu) => {
            let mut command = Command::new(Path::new("taskset"));
            command.arg("-c").arg(cpu.to_string()).arg(exe);
            command
        }
        None => Command::new(exe),
    }
}

/// This very program in another role, while it runs. It answers each line that
/// it is asked with one, and ends when this is dropped.
pub struct Peer {
    child: Child,
    asks: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// What it said first.
    pub hello: String,
}

impl Peer {
    /// Starts it, on one CPU if told so, and waits for its first line.
    pub fn start(cpu: Option<usize>, role: &str, args: &[&str]) -> Self {
        let mut child = command(cpu)
            .arg(role)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("run again");
        let asks = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut peer = Self { child, asks, answers, hello: String::new() };
        peer.hello = peer.line();
        peer
    }

    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }

    pub fn ask(&mut self, question: &str) -> String {
        let asks = self.asks.as_mut().expect("open until dropped");
        writeln!(asks, "{question}").expect("it listens");
        self.line()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).expect("readable");
        assert!(read > 0, "the other process ended early");
        line.trim().to_owned()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its `obey` ends with its input.
        drop(self.asks.take());
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The other side of a [`Peer`]: says `hello`, then answers until nobody asks.
pub fn obey(hello: &str, mut answer: impl FnMut(&str) -> String) {
    let say = |text: &str| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
    };
    if !say(hello) {
        return;
    }
    for line in std::io::stdin().lines() {
        let Ok(line) = line else { return };
        if !say(&answer(&line)) {
            return;
        }
    }
}
