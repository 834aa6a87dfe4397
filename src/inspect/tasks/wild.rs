//! Real tasks in memory that was tampered with. What no program writes must
//! neither hold a dump up nor end it.
//!
//! Bytes are taken for patches, which put other words where parked tasks have
//! theirs: pointers that lead in circles or nowhere, lengths beyond all reason,
//! states that are none.

use std::collections::HashMap;
use std::future::{Future, pending};
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Notify, RwLock, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::parked::{image, layouts};
use super::{Limits, Roots, TasksRead, read};
use crate::inspect::image::{Fault, Image, Memory};
use crate::model::TaskState;

/// Bytes of a patch: which piece, which word of it, how, and a value.
const PATCH: usize = 6;
/// Patches taken from one input.
const PATCHES: usize = 256;
/// A page: what patches find their way by.
const PIECE: u64 = 4096;
/// Pieces that patches can reach.
const PIECES: usize = 256;
const WORD: u64 = 8;

/// Reads the tasks with some of their words replaced. The first byte says
/// whether to search the heap as well.
///
/// # Panics
/// If a bound does not hold.
pub fn any_patches(bytes: &[u8]) {
    patched(bytes);
}

/// [`any_patches`], and what was read.
pub(super) fn patched(bytes: &[u8]) -> TasksRead {
    let stage = stage();
    let (search, bytes) = match bytes.split_first() {
        Some((first, rest)) => (first % 2 == 1, rest),
        None => (false, bytes),
    };
    let limits = limits();
    let roots = Roots { search, ..stage.roots.clone() };
    let Image { memory: mut own, .. } = image();
    let words = stage.patches(&mut *own, bytes);
    let mut image = Image { memory: Box::new(Patched { own, words }), ..image() };
    let read = read(&mut image, &mut *layouts(), &roots, &limits).expect("there is memory");
    check(&read, &limits);
    read
}

/// Small enough to be reached.
fn limits() -> Limits {
    Limits {
        tasks: 1_000,
        depth: 200,
        frames: 1_000,
        branches: 100,
        list: 1_000,
        bytes: 64 << 20,
        search_bytes: 4 << 20,
        deadline: None,
    }
}

fn check(read: &TasksRead, limits: &Limits) {
    assert!(read.tasks.len() <= limits.tasks);
    let listed: u64 = read.owners.iter().map(|owner| owner.read).sum();
    assert!(read.tasks.len() as u64 <= listed, "{} of {listed}", read.tasks.len());
    assert!(read.tasks.is_sorted_by(|one, other| one.id < other.id), "an id is told once");
    for task in &read.tasks {
        let frames = task.stack.as_ref().map_or(0, |stack| stack.frames.len());
        assert!(frames <= limits.frames, "{frames} frames");
        assert!(task.branches.len() <= limits.branches, "{} branches", task.branches.len());
        assert!(task.holds.len() <= limits.list, "{} holds", task.holds.len());
    }
}

/// Tasks that wait for good, and where their memory is.
struct Stage {
    roots: Roots,
    /// Pages of the heap that reading the tasks leads to.
    pieces: Vec<u64>,
    /// The roots lead to it.
    _handle: Box<Handle>,
    _runtime: Runtime,
}

fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(|| {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build();
        let runtime = runtime.expect("a runtime");
        park(&runtime);
        let handle = Box::new(runtime.handle().clone());
        let handles = vec![std::ptr::from_ref(&*handle) as u64];
        let roots = Roots { handles, monotonic_ns: Some(1), ..Roots::default() };
        let pieces = pieces(&roots, &runtime);
        Stage { roots, pieces, _handle: handle, _runtime: runtime }
    })
}

/// One task for each manner of waiting.
fn park(runtime: &Runtime) {
    let _entered = runtime.enter();
    let notify = Arc::new(Notify::new());
    let lock = Arc::new(tokio::sync::Mutex::new(0_u64));
    let held = lock.clone().try_lock_owned().expect("nobody has it");
    tokio::spawn(async move {
        let _held = held;
        pending::<()>().await;
    });
    for _ in 0..3 {
        let (lock, notify) = (lock.clone(), notify.clone());
        tokio::spawn(async move { *lock.lock().await += 1 });
        tokio::spawn(async move { timeout(FOREVER, notify.notified()).await });
    }
    let (send, receive) = mpsc::channel(1);
    send.try_send(1_u64).expect("there is room");
    let waits = notify.clone();
    tokio::spawn(async move {
        let _receive = receive;
        waits.notified().await;
    });
    tokio::spawn(async move { send.send(2).await });
    tokio::spawn(async {
        let mut set = JoinSet::new();
        set.spawn(pending::<()>());
        set.join_next().await;
    });
    tokio::spawn(async {
        let all = (0..3).map(|_| Box::pin(pending::<()>()));
        all.collect::<FuturesUnordered<_>>().next().await;
    });
    let permits = Arc::new(Semaphore::new(1));
    let wanted = permits.clone();
    let boxed: Pin<Box<dyn Future<Output = ()> + Send>> =
        Box::pin(async move { drop(wanted.acquire_many(2).await) });
    tokio::spawn(boxed);
    let table = Arc::new(RwLock::new(()));
    let reads = table.clone().try_read_owned().expect("nobody writes");
    tokio::spawn(async move {
        let (_reads, (_send, mut changes)) = (reads, watch::channel(0_u64));
        tokio::select! {
            _ = changes.changed() => {}
            () = notify.notified() => {}
            () = sleep(FOREVER) => {}
        }
    });
    tokio::spawn(async move { drop(table.write().await) });
}

const FOREVER: Duration = Duration::from_secs(1 << 30);

/// Reads the tasks as they are until all have come to rest; what was read.
fn pieces(roots: &Roots, runtime: &Runtime) -> Vec<u64> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let pieces = Arc::<Mutex<Vec<u64>>>::default();
        let Image { memory: own, .. } = image();
        let noting = Noting { own, pieces: pieces.clone() };
        let mut image = Image { memory: Box::new(noting), ..image() };
        let read = read(&mut image, &mut *layouts(), roots, &limits()).expect("there is memory");
        drop(image);
        // Some spawn others when they are polled first.
        let tasks = runtime.metrics().num_alive_tasks();
        let idle = read.tasks.iter().filter(|task| task.state == TaskState::Idle).count();
        if idle == tasks {
            return std::mem::take(&mut pieces.lock().unwrap_or_else(PoisonError::into_inner));
        }
        assert!(Instant::now() < deadline, "{idle} of {tasks} tasks are at rest");
        std::thread::yield_now();
    }
}

impl Stage {
    /// Where a patch points.
    fn place(&self, piece: u8, word: u16) -> u64 {
        let piece = self.pieces[usize::from(piece) % self.pieces.len()];
        piece + u64::from(word) % (PIECE / WORD) * WORD
    }

    /// Other words, by their addresses.
    fn patches(&self, own: &mut dyn Memory, bytes: &[u8]) -> HashMap<u64, u64> {
        let mut words = HashMap::new();
        for patch in bytes.chunks_exact(PATCH).take(PATCHES) {
            let &[piece, low, high, how, first, second] = patch else { continue };
            let at = self.place(piece, u16::from_le_bytes([low, high]));
            let value = u16::from_le_bytes([first, second]);
            let other = self.place(how / 8, value);
            let new = match how % 8 {
                0 => 0,
                1 => u64::from(value),
                // Twice as often: what leads in circles, or beside the beginning.
                2 | 3 => other,
                4 => other + u64::from(how / 8),
                5 => word(own, other),
                6 => word(own, at) ^ (1 << (value % 64)),
                _ => u64::from(value).wrapping_mul(0x0001_0001_0001_0001),
            };
            words.insert(at, new);
        }
        words
    }
}

/// The word at an address, as it is; 0 where there is none.
fn word(own: &mut dyn Memory, at: u64) -> u64 {
    let mut word = [0; WORD as usize];
    own.read(at, &mut word).map_or(0, |()| u64::from_le_bytes(word))
}

/// Notes which pages of the heap are read.
struct Noting {
    own: Box<dyn Memory + Send>,
    pieces: Arc<Mutex<Vec<u64>>>,
}

impl Memory for Noting {
    fn read(&mut self, address: u64, to: &mut [u8]) -> Result<(), Fault> {
        self.own.read(address, to)?;
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        for page in (address / PIECE * PIECE..address + to.len() as u64).step_by(PIECE as usize) {
            let is_heap = self.own.writable().iter().any(|range| range.contains(&page));
            if is_heap && pieces.len() < PIECES && !pieces.contains(&page) {
                pieces.push(page);
            }
        }
        Ok(())
    }

    fn writable(&self) -> &[Range<u64>] {
        self.own.writable()
    }
}

/// This process, with some of its words replaced by others.
struct Patched {
    own: Box<dyn Memory + Send>,
    words: HashMap<u64, u64>,
}

impl Memory for Patched {
    fn read(&mut self, address: u64, to: &mut [u8]) -> Result<(), Fault> {
        self.own.read(address, to)?;
        // Words at odd places are left as they are: nothing reads there.
        let words = (address..).step_by(WORD as usize).zip(to.chunks_exact_mut(WORD as usize));
        for (at, word) in words {
            if let Some(other) = self.words.get(&at) {
                word.copy_from_slice(&other.to_le_bytes());
            }
        }
        Ok(())
    }

    fn writable(&self) -> &[Range<u64>] {
        self.own.writable()
    }
}
