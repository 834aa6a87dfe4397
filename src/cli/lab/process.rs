//! The processes of a case: this very program, as server and as client.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::sys::process::{Signal, ends_with_us, signal};

/// How often a connection is pinged, both ways.
pub const PING_EVERY: &str = "1s";

/// A debug build takes seconds to read its own debug information.
const STARTUP: Duration = Duration::from_secs(30);

/// One process of ours; it is killed when this is dropped.
pub struct Member {
    child: Child,
    /// Where its debug server answers.
    pub socket: PathBuf,
    output: PathBuf,
    errors: PathBuf,
}

impl Member {
    /// Starts this program with `arguments`, its files named after `name`, in a
    /// network namespace if one is given.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        folder: &Path,
        name: &str,
        arguments: &[&str],
        namespace: Option<&str>,
    ) -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = match namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let file = |kind| folder.join(format!("{name}.{kind}"));
        let (socket, output, errors) = (file("sock"), file("out"), file("err"));
        command
            .args(arguments)
            .arg("--unix")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&errors)?);
        ends_with_us(&mut command);
        Ok(Self { child: command.spawn()?, socket, output, errors })
    }

    /// Waits until it says where it serves gRPC.
    ///
    /// # Errors
    /// A sentence: it ended, or says nothing for too long.
    pub async fn grpc(&mut self) -> Result<SocketAddr, String> {
        let began = Instant::now();
        loop {
            let said = fs::read_to_string(&self.output).unwrap_or_default();
            let address = said.split_inclusive('\n').find_map(|line| {
                line.strip_prefix("grpc    listening on ")?.strip_suffix('\n')?.parse().ok()
            });
            if let Some(address) = address {
                return Ok(address);
            }
            self.lives()?;
            if began.elapsed() > STARTUP {
                return Err("it does not say where it serves gRPC".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it has read its debug information, which it does in the
    /// background: what it says is timed as of a server that runs, and not of
    /// one that starts.
    ///
    /// # Errors
    /// A sentence: it ended, or reads for too long.
    pub async fn warmed(&mut self) -> Result<(), String> {
        let began = Instant::now();
        while self.warms() {
            self.lives()?;
            if began.elapsed() > STARTUP {
                return Err("it still reads its debug information".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// It has the thread that reads debug information.
    fn warms(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        threads.into_iter().flatten().flatten().any(|thread| {
            fs::read(thread.path().join("comm")).is_ok_and(|name| name == b"taskprof-warm\n")
        })
    }

    /// # Errors
    /// Its last words, if it has ended.
    pub fn lives(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                let said = fs::read_to_string(&self.errors).unwrap_or_default();
                let last = said.lines().last().unwrap_or("without a word");
                Err(format!("it ended ({status}): {last}"))
            }
            Err(error) => Err(format!("it cannot be waited for: {error}")),
        }
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// It has ended.
    pub fn freeze(&mut self) -> Result<(), String> {
        signal(&mut self.child, Signal::Stop).map_err(|error| format!("cannot stop it: {error}"))
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It has ended.
    pub fn thaw(&mut self) -> Result<(), String> {
        signal(&mut self.child, Signal::Continue).map_err(|error| format!("cannot go on: {error}"))
    }

    /// SIGKILL, which a stopped process obeys as well.
    pub fn kill(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A folder for sockets and output, removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one that only its owner may enter.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make() -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = std::env::temp_dir().join(format!("taskprof-lab-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left then lies in the system's temporary folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}
