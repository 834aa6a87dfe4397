//! The await chains of this process, read from a copy-on-write image of its
//! own memory.

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::debuginfo::layout::{self, Detail, Layouts, Options};
use crate::debuginfo::symbols::{guarded, own_executable};
use crate::error::{Error, ErrorKind};
use crate::inspect::image::own::{self, Extent, Own};
use crate::inspect::tasks::{self, Limits, Roots, Stray, TasksRead};
use crate::model::{Missing, Reason};

/// Images taken until one is whole: see [`TasksRead::short`].
const ATTEMPTS: usize = 3;

/// A dump waits no longer for the debug information to be read: without await
/// chains and stacks it still says much.
pub(super) const OPENING: Duration = Duration::from_secs(2);

/// Nor this long while every worker is in a poll: it may be that all are blocked,
/// and then whoever asks has no time.
pub(super) const OPENING_BUSY: Duration = Duration::from_millis(100);

/// Why something is not there yet.
pub(super) const STILL_READING: &str =
    "the program's debug information is still being read; ask again";

/// Once the first image took this long it must do. One in some hundreds catches
/// a spawn half done where tasks come and go all the time, and lacks that one.
const PATIENCE: Duration = Duration::from_secs(4);

/// Reading stops here and says so; this is for machines that are overwhelmed.
const READING: Duration = Duration::from_secs(10);

/// Between two searches at least this many times what one took: a `LocalSet`
/// is seen late on a large heap rather than the heap read all the time.
const SEARCH_REST: u32 = 20;

/// Nor does the next search begin sooner than this after the last: what it is
/// for rarely comes to be, and the search is half of a dump.
const SEARCH_LEAST: Duration = Duration::from_secs(10);

/// An image lives no longer, whatever happens to its reader: while it does,
/// every page that the process writes to is copied.
const LIFE: Duration = Duration::from_secs(15);

/// Reads await chains, once the program's layouts are known.
pub struct Awaits {
    state: Mutex<State>,
    /// Told when the layouts are there.
    opened: Condvar,
}

enum State {
    /// Switched off.
    Off,
    /// Being looked for, or about to be: see [`Awaits::warm_up`].
    Unread(Options),
    Read(Box<Known>),
    /// Looked for in vain: not tried again, the program does not change.
    Missing(String),
}

/// What is kept from one dump to the next.
struct Known {
    layouts: Box<dyn Layouts>,
    /// What is missing of the debug information.
    remark: Option<String>,
    /// `LocalSet`s and foreign runtimes, which only a search finds.
    strays: Vec<Stray>,
    /// When the last search was.
    searched_at: Option<Instant>,
    /// When the next is due, and where it goes on.
    search_at: Option<Instant>,
    search_from: u64,
    /// Bytes that the last did not see.
    unseen: u64,
}

impl fmt::Debug for Awaits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Awaits").finish_non_exhaustive()
    }
}

impl Awaits {
    /// `options`: where to look for debug information that is not in the
    /// executable; `None` switches reading off.
    pub fn new(options: Option<Options>) -> Self {
        let state = Mutex::new(options.map_or(State::Off, State::Unread));
        Self { state, opened: Condvar::new() }
    }

    /// Reads the program's debug information: for a thread of its own, since
    /// it takes a part of a second, and seconds without optimisation.
    pub fn warm_up(&self) {
        let options = match &*self.lock() {
            State::Unread(options) => options.clone(),
            _ => return,
        };
        // Whoever asks meanwhile is not kept waiting by the lock.
        let found = guarded(&own_executable(), || open(&options))
            .unwrap_or_else(|error| State::Missing(error.to_string()));
        *self.lock() = found;
        self.opened.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads all tasks of these runtimes and of those that the search finds.
    /// Waits until then at most for debug information that is being read. The
    /// handles are read where they lie: those of the cells lie beside what the
    /// program keeps of its runtimes, a copy would lie in the profiler's own heap,
    /// which an image can do without.
    ///
    /// # Errors
    /// Why await chains cannot be had, in a sentence.
    pub fn read(&self, handles: &[&Handle], until: Instant) -> Result<TasksRead, (Reason, String)> {
        let unread = |state: &mut State| matches!(state, State::Unread(_));
        let left = until.saturating_duration_since(Instant::now());
        let (mut state, _) = self
            .opened
            .wait_timeout_while(self.lock(), left, unread)
            .unwrap_or_else(PoisonError::into_inner);
        let known = match &mut *state {
            State::Read(known) => known,
            State::Missing(why) => return Err((Reason::NoDebugInfo, why.clone())),
            State::Off => {
                return Err((Reason::NoAwaitChain, "await chains are switched off".into()));
            }
            State::Unread(_) => {
                return Err((Reason::NoAwaitChain, STILL_READING.into()));
            }
        };
        let begun = Instant::now();
        let due = known.search_at.is_none_or(|at| at <= begun);
        let mut roots = Roots {
            handles: handles.iter().map(|&handle| std::ptr::from_ref(handle) as u64).collect(),
            search: due,
            strays: known.strays.clone(),
            ..Roots::default()
        };
        let read = read_whole(known, &mut roots, begun);
        known.layouts.release();
        let mut read = read?;
        if let Some(detail) = known.remark.clone() {
            read.missing.push(Missing { reason: Reason::NoDebugInfo, count: 0, detail });
        }
        if let Some(last) = known.searched_at.filter(|last| *last < begun) {
            read.missing.push(unsearched(begun.duration_since(last)));
        }
        if known.unseen > 0 {
            read.missing.push(unseen(known.unseen));
        }
        Ok(read)
    }
}

/// Heaps are not searched all the time; what that may hide.
fn unsearched(since: Duration) -> Missing {
    let detail = format!(
        "a LocalSet or a runtime without hooks begun in the last {:.1} s: the heap was last \
         searched then",
        since.as_secs_f64()
    );
    Missing { reason: Reason::NoHook, count: 0, detail }
}

/// Of a large heap a search sees a share at a time.
fn unseen(bytes: u64) -> Missing {
    let detail = format!(
        "LocalSets and runtimes without hooks in {} MiB of memory from which no task was read: \
         each search sees another part of it",
        bytes >> 20
    );
    Missing { reason: Reason::NoHook, count: 0, detail }
}

/// Reads images until one is whole, or as good as can be had.
fn read_whole(
    known: &mut Known,
    roots: &mut Roots,
    begun: Instant,
) -> Result<TasksRead, (Reason, String)> {
    let mut best: Option<TasksRead> = None;
    let mut lacked = false;
    for attempt in 1..=ATTEMPTS {
        let extent = match attempt {
            // What leads from one region to the next takes too many images.
            ATTEMPTS if lacked => Extent::Everything,
            _ if roots.search => Extent::Search { from: known.search_from },
            _ => Extent::Needed,
        };
        let read = read_once(known, roots, extent).map_err(|error| {
            let reason = match error.kind() {
                ErrorKind::Malformed => Reason::NoDebugInfo,
                _ => Reason::NoMemoryImage,
            };
            (reason, error.to_string())
        });
        lacked = matches!(read, Ok((_, false)));
        let late = begun.elapsed() > PATIENCE;
        match (read, &best) {
            (Ok((read, _)), None) if late => return Ok(read),
            (Ok((read, whole)), _) if whole && read.short() == 0 => return Ok(read),
            (Ok((read, _)), Some(other)) if read.short() > other.short() => {}
            (Ok((read, _)), _) => best = Some(read),
            // What an earlier image showed is better than nothing.
            (Err(_), Some(_)) => break,
            (Err(error), None) => return Err(error),
        }
    }
    best.ok_or_else(|| (Reason::NoMemoryImage, "no image could be taken".into()))
}

/// Reads one image; and whether that had all that was to be read.
fn read_once(
    known: &mut Known,
    roots: &mut Roots,
    extent: Extent,
) -> Result<(TasksRead, bool), Error> {
    let Own { mut image, left_out, next } = own::take(LIFE, extent)?;
    roots.monotonic_ns = Some(image.taken_ns);
    roots.process = Some(image.pid);
    let limits = Limits { deadline: Some(Instant::now() + READING), ..Limits::default() };
    let read = tasks::read(&mut image, known.layouts.as_mut(), roots, &limits)?;
    let whole = !image.memory.lacked();
    known.strays.clone_from(&read.strays);
    roots.strays.clone_from(&read.strays);
    // What a search found may have led to where the image was left out: the
    // next image has that, and is searched in the same place.
    if let Some(took) = read.searched
        && whole
    {
        roots.search = false;
        let now = Instant::now();
        known.searched_at = Some(now);
        known.search_at = Some(now + (took * SEARCH_REST).max(SEARCH_LEAST));
        known.search_from = next;
        known.unseen = left_out;
    }
    Ok((read, whole))
}

fn open(options: &Options) -> State {
    let found = match layout::open(&own_executable(), options) {
        Ok(found) => found,
        Err(error) => return State::Missing(error.to_string()),
    };
    if found.layouts.detail() == Detail::Nothing {
        let remark = found.remark.map(|remark| format!(" ({remark})")).unwrap_or_default();
        return State::Missing(format!(
            "the program has no debug information{remark}: build it with debug = \"full\", or put \
             a layout file beside it (taskprof index)"
        ));
    }
    State::Read(Box::new(Known {
        layouts: found.layouts,
        remark: found.remark,
        strays: Vec::new(),
        searched_at: None,
        search_at: None,
        search_from: 0,
        unseen: 0,
    }))
}
