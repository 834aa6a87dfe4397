//! The real `tokio-console` in a terminal, attached to a real server.
//!
//! It needs `tmux` (the terminal that can be read) and `tokio-console`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::server::{DEADLINE, Server, tool};

/// Between two looks at the screen.
const LOOK: Duration = Duration::from_millis(100);

/// A terminal with `tokio-console` in it, in a tmux server of its own.
struct Screen {
    socket: String,
}

impl Screen {
    /// Attaches to a server; `None` if a tool is missing.
    fn attach(console: SocketAddr) -> Option<Self> {
        let (program, _tmux) = (tool(&["tokio-console"])?, tool(&["tmux"])?);
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let screen = Self { socket: format!("taskprof-test-{}-{number}", std::process::id()) };
        // Its words and not its colours are read; its own logs stay off.
        let command =
            format!("exec '{}' --no-colors --lang C.UTF-8 http://{console}", program.display());
        let size = ["-x", "200", "-y", "50"];
        screen.tmux(&[&["-f", "/dev/null", "new-session", "-d"], &size[..], &[&command]].concat());
        Some(screen)
    }

    /// What the terminal shows now.
    fn text(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Presses keys, by tmux's names of them.
    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Waits until the screen shows what is looked for, and returns the screen.
    fn wait_for(&self, what: &str, shown: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let text = self.text();
            if shown(&text) {
                return text;
            }
            assert!(began.elapsed() < DEADLINE, "no {what} within {DEADLINE:?}:\n{text}");
            std::thread::sleep(LOOK);
        }
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let output = Command::new("tmux")
            .args(["-L", &self.socket])
            .args(arguments)
            .env("TERM", "xterm-256color")
            .env_remove("TMUX")
            .env_remove("RUST_LOG")
            .output()
            .expect("tmux starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {arguments:?}: {error}");
        output
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Only ever this test's own tmux server. The client may have ended already.
        let _ = Command::new("tmux").args(["-L", &self.socket, "kill-server"]).output();
    }
}

/// `Tasks (12)` in the frame of the list.
fn task_count(screen: &str) -> Option<u64> {
    let (_, rest) = screen.split_once("Tasks (")?;
    rest.split_once(')')?.0.parse().ok()
}

#[test]
fn the_real_client_shows_the_task_list() {
    let server = Server::with_faults(&[]);
    let _load = server.load("watch", &["--streams", "8", "--seconds", "120"]);
    // As short as the client shows them.
    let (method, place) = ("Echo/BidirectionalStreamingEcho", "src/");
    let Some(screen) = Screen::attach(server.console) else { return };
    let list = screen.wait_for("task list", |text| {
        text.contains("(CONNECTED)") && text.contains(method) && text.contains(place)
    });
    assert!(task_count(&list).is_some_and(|count| count > 0), "{list}");
    for column in ["ID", "State", "Name", "Total", "Busy", "Sched", "Idle", "Polls", "Location"] {
        assert!(list.contains(column), "no column {column}:\n{list}");
    }
    // It warns of tasks without wakers unless told otherwise; we know of none.
    assert!(!list.contains("lost their wakers"), "{list}");
    assert!(!list.contains("woken themselves"), "{list}");

    screen.press(&["Down", "Enter"]);
    let details = screen.wait_for("details of a task", |text| text.contains("Target:"));
    assert!(details.contains("Location:"), "{details}");
    screen.press(&["Escape"]);
    screen.wait_for("task list again", |text| task_count(text).is_some());

    screen.press(&["Space"]);
    screen.wait_for("pause", |text| text.contains(" PAUSED"));
    screen.press(&["Space"]);
    screen.wait_for("resume", |text| !text.contains("PAUS"));
}

/// The program with `console_subscriber` in it, which the test command builds.
fn full() -> Option<std::path::PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    tool(&[target.join("console-full/taskprof").to_str().expect("path")])
}

/// `Resources (12)` in the frame of the list.
fn resource_count(screen: &str) -> Option<u64> {
    let (_, rest) = screen.split_once("Resources (")?;
    rest.split_once(')')?.0.parse().ok()
}

#[test]
fn the_full_console_shows_resources() {
    let Some(program) = full() else { return };
    // The layer has one address, so this is the only test that may take it.
    let server = Server::of(&program, &["serve"], "full");
    let _load = server.load("watch", &["--streams", "4", "--seconds", "120"]);
    // A second one is told that there is no other address for it.
    let free = ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let second = Command::new(&program).args(["serve", "--console", "full"]).args(free).output();
    let second = second.expect("it starts");
    let error = String::from_utf8_lossy(&second.stderr);
    assert!(error.contains("6669") && error.contains("or use --console ADDR"), "{error}");
    assert_eq!((second.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    let Some(screen) = Screen::attach(server.console) else { return };
    screen.wait_for("task list", |text| task_count(text).is_some_and(|count| count > 0));
    screen.press(&["r"]);
    let list = screen.wait_for("list of resources", |text| {
        resource_count(text).is_some_and(|count| count > 0) && text.contains("Sleep")
    });
    assert!(list.contains("Timer"), "{list}");
}
