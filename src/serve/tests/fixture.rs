//! A saved snapshot as a source, and a client that writes requests by hand.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{CpuProfile, Process, Snapshot, sample};
use crate::serve::{Listen, LogTarget, ServeConfig, Server, Source, Want, start};

/// Serves one snapshot; counts how often it was asked.
pub struct Saved {
    pub snapshot: Mutex<Snapshot>,
    pub taken: AtomicUsize,
    pub takes: Duration,
    pub panics: AtomicBool,
    /// Who asks for stacks waits while a test holds it.
    pub stacks: Mutex<()>,
    sampling: AtomicBool,
}

impl Saved {
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot: Mutex::new(snapshot),
            taken: AtomicUsize::new(0),
            takes: Duration::ZERO,
            panics: AtomicBool::new(false),
            stacks: Mutex::default(),
            sampling: AtomicBool::new(false),
        }
    }

    /// In whatever is asked of it.
    fn may_panic(&self) {
        if self.panics.load(Ordering::SeqCst) {
            std::panic::panic_any(Bomb);
        }
    }
}

/// What a panic may throw: something whose drop panics once more.
pub struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a panic's payload was dropped");
    }
}

impl Source for Saved {
    fn process(&self) -> Process {
        self.may_panic();
        sample::process()
    }

    fn command_line(&self) -> Vec<String> {
        self.may_panic();
        vec!["billing".into(), "--region".into(), "north sea".into()]
    }

    fn snapshot(&self, want: Want) -> Result<Snapshot> {
        self.taken.fetch_add(1, Ordering::SeqCst);
        let _held = want.stacks.then(|| self.stacks.lock().unwrap_or_else(PoisonError::into_inner));
        std::thread::sleep(self.takes);
        self.may_panic();
        Ok(self.snapshot.lock().unwrap().clone())
    }

    fn cpu_profile(
        &self,
        duration: Duration,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<CpuProfile> {
        self.may_panic();
        if self.sampling.swap(true, Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Busy, "another profile is being taken"));
        }
        let until = Instant::now() + duration;
        while Instant::now() < until && !stop() {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.sampling.store(false, Ordering::SeqCst);
        Ok(sample::cpu_profile())
    }

    fn symbol(&self, address: u64) -> Option<String> {
        self.may_panic();
        (address == 0x4a3200).then(|| "billing::charge_card src/billing.rs:88".to_owned())
    }

    fn log_streams(&self, target: &LogTarget, _: bool) -> Result<usize> {
        self.may_panic();
        match target {
            LogTarget::Stream(id)
                if self.snapshot.lock().unwrap().streams.iter().all(|stream| stream.id != *id) =>
            {
                Err(Error::new(ErrorKind::NotFound, format!("there is no live stream {id}")))
            }
            _ => Ok(1),
        }
    }
}

/// A server on a free port.
pub struct Target {
    pub server: Server,
    pub source: Arc<Saved>,
}

pub fn config() -> ServeConfig {
    ServeConfig::new(Listen::Tcp(([127, 0, 0, 1], 0).into()))
}

pub fn serve(source: Saved, config: ServeConfig) -> Target {
    let source = Arc::new(source);
    let server = start(config, Arc::clone(&source) as Arc<dyn Source>).unwrap();
    Target { server, source }
}

/// The busy server with default settings.
pub fn busy() -> Target {
    serve(Saved::new(sample::busy_server()), config())
}

/// An answer, taken apart.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

impl Target {
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends these bytes and reads until the end.
    pub fn raw(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        answer(stream)
    }

    pub fn request(&self, method: &str, target: &str, headers: &str) -> Answer {
        self.raw(&format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
        ))
    }

    pub fn get(&self, target: &str) -> Answer {
        self.request("GET", target, "")
    }
}

/// Reads an answer whose connection is closed behind it.
pub fn answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("no whole head in {:?}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head[9..12].parse().unwrap();
    let mut body = bytes.split_off(end + 4);
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = unchunk(&body);
    }
    Answer { status, head, body }
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    panic!("the answer was broken off");
}
