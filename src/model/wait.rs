//! What a suspended task waits for, and who holds it.

use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Location, Resource, Stack, StreamId, TaskId};

/// The kind of thing waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the variants are tokio's own type names
pub enum WaitKind {
    Mutex,
    RwLockRead,
    RwLockWrite,
    Semaphore,
    MpscRecv,
    MpscSend,
    Oneshot,
    Notify,
    Watch,
    Broadcast,
    Barrier,
    OnceCell,
    Join,
    Sleep,
    SocketRead,
    SocketWrite,
    GrpcMessage,
    Yield,
    Unknown,
}

impl WaitKind {
    /// Every kind.
    pub const ALL: [Self; 19] = [
        Self::Mutex,
        Self::RwLockRead,
        Self::RwLockWrite,
        Self::Semaphore,
        Self::MpscRecv,
        Self::MpscSend,
        Self::Oneshot,
        Self::Notify,
        Self::Watch,
        Self::Broadcast,
        Self::Barrier,
        Self::OnceCell,
        Self::Join,
        Self::Sleep,
        Self::SocketRead,
        Self::SocketWrite,
        Self::GrpcMessage,
        Self::Yield,
        Self::Unknown,
    ];

    /// The word used in JSON and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mutex => "mutex",
            Self::RwLockRead => "rw_lock_read",
            Self::RwLockWrite => "rw_lock_write",
            Self::Semaphore => "semaphore",
            Self::MpscRecv => "mpsc_recv",
            Self::MpscSend => "mpsc_send",
            Self::Oneshot => "oneshot",
            Self::Notify => "notify",
            Self::Watch => "watch",
            Self::Broadcast => "broadcast",
            Self::Barrier => "barrier",
            Self::OnceCell => "once_cell",
            Self::Join => "join",
            Self::Sleep => "sleep",
            Self::SocketRead => "socket_read",
            Self::SocketWrite => "socket_write",
            Self::GrpcMessage => "grpc_message",
            Self::Yield => "yield",
            Self::Unknown => "unknown",
        }
    }

    /// The words for a person, in the manner of Go's `chan receive`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Mutex => "mutex lock",
            Self::RwLockRead => "rwlock read",
            Self::RwLockWrite => "rwlock write",
            Self::Semaphore => "semaphore acquire",
            Self::MpscRecv => "chan receive",
            Self::MpscSend => "chan send",
            Self::Oneshot => "oneshot receive",
            Self::Notify => "notified",
            Self::Watch => "watch changed",
            Self::Broadcast => "broadcast receive",
            Self::Barrier => "barrier wait",
            Self::OnceCell => "once cell init",
            Self::Join => "join",
            Self::Sleep => "sleep",
            Self::SocketRead => "IO wait, read",
            Self::SocketWrite => "IO wait, write",
            Self::GrpcMessage => "gRPC message",
            Self::Yield => "yield",
            Self::Unknown => "unknown",
        }
    }
}

/// What a task holds that others may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the variants are tokio's own names
pub enum HeldKind {
    /// A `MutexGuard`, owned or mapped ones included.
    Mutex,
    RwLockRead,
    RwLockWrite,
    /// A `SemaphorePermit`.
    Permit,
    MpscSender,
    MpscReceiver,
    OneshotSender,
    WatchSender,
    BroadcastSender,
}

impl HeldKind {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Mutex => "mutex guard",
            Self::RwLockRead => "rwlock read guard",
            Self::RwLockWrite => "rwlock write guard",
            Self::Permit => "permit",
            Self::MpscSender => "mpsc sender",
            Self::MpscReceiver => "mpsc receiver",
            Self::OneshotSender => "oneshot sender",
            Self::WatchSender => "watch sender",
            Self::BroadcastSender => "broadcast sender",
        }
    }
}

/// One thing that a task holds in a live local.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Held {
    /// What it is.
    pub kind: HeldKind,
    /// Identity of the resource, as in [`Wait::resource`].
    pub resource: Resource,
    /// The local variable, or the path of fields that leads to it.
    pub local: Option<Arc<str>>,
    /// The function whose local it is, short.
    pub function: Option<Arc<str>>,
    /// Where that function is suspended.
    pub location: Option<Location>,
    /// It sits in a future that its task keeps but no longer polls.
    pub dormant: bool,
    /// By a flag that the compiler keeps, some local of its function was moved
    /// away or dropped before: it may be this one, of which only the bytes are
    /// left. What rests on it is not proven.
    #[serde(default)]
    pub perhaps_dropped: bool,
    /// Of a task that awaits several things at once: the one whose future has
    /// this, so that it is given up when that future ends or is dropped; 0 for
    /// the task's main chain, n for `branches[n - 1]`. None if it lies around
    /// several of them, or if there is only one.
    #[serde(default)]
    pub within: Option<u32>,
    /// Of an unbounded channel's receiver: messages that lie in the channel.
    /// None if there are none, or if that is not known.
    #[serde(default)]
    pub backlog: Option<NonZeroU32>,
}

/// Something else that a task awaits at the same time (`select!`, `join!`,
/// `FuturesUnordered`), or keeps and no longer polls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Branch {
    /// Its frames, innermost first, down to where it leaves the task's stack.
    pub stack: Arc<Stack>,
    /// What it waits for.
    pub wait: Option<Wait>,
    /// The task keeps this future and does not poll it: what it queued for
    /// or holds cannot be given up (a futurelock).
    pub dormant: bool,
}

/// A task that holds what another waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Holder {
    /// Who holds it.
    pub task: TaskId,
    /// The local variable that is the guard.
    pub local: Option<Arc<str>>,
    /// Where that local lives.
    pub location: Option<Location>,
}

/// What a task waits for.
///
/// There is one for nearly every task, so it is small: what few waits have
/// lies apart and is read through the wait, as if it were part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Told", into = "Told")]
pub struct Wait {
    /// The kind of resource.
    pub kind: WaitKind,
    /// `wait_ns` is a lower bound: the begin of the wait was not seen.
    pub lower_bound: bool,
    /// How many wait in its queue, this one included, where that is known.
    pub queue: Option<u32>,
    /// Of a channel's receiver: how many senders there are in all, seen or
    /// not, by the channel's own count. None while weak senders exist, of
    /// which more can be made.
    pub senders: Option<u32>,
    /// Identity of the resource: equal for all that wait on one thing.
    pub resource: Option<Resource>,
    /// Time until the deadline of a sleep or timeout; negative once it passed.
    pub deadline_in_ns: Option<i64>,
    /// How long this wait has lasted.
    pub wait_ns: u64,
    /// What few waits have; read it through the wait.
    pub about: Option<Box<About>>,
    /// What tells it from another wait for the same. Not told: it says nothing
    /// by itself.
    pub mark: Mark,
}

/// What two looks at one place tell two waits apart by, in four bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark(u32);

impl Mark {
    const PLACE: u32 = 1 << 31;

    /// Of a counter that moves on when such a wait ends: different marks are
    /// of different waits.
    pub fn of_counter(counter: u64) -> Self {
        // The upper half of the product depends on all of its bits.
        Self((counter.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) as u32)
    }

    /// Of a place in a queue: so many stand before it.
    pub fn of_place(ahead: u32) -> Self {
        Self(Self::PLACE | ahead.min(Self::PLACE - 1))
    }

    /// How many stand before it in a first-come queue, where that is known.
    pub fn ahead(self) -> Option<u32> {
        (self.0 & Self::PLACE != 0).then_some(self.0 & !Self::PLACE)
    }

    /// What is the same as long as the wait is.
    pub fn counter(self) -> u32 {
        if self.ahead().is_some() { 0 } else { self.0 }
    }
}

/// What only few waits have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Details for a person: deadline, peer address, permits wanted.
    pub detail: Option<Arc<str>>,
    /// The task waited for, of a join handle.
    pub task: Option<TaskId>,
    /// The gRPC stream whose message is awaited.
    pub stream: Option<StreamId>,
    /// File descriptor of a socket.
    pub fd: Option<i32>,
    /// Who holds it, as far as seen.
    pub holders: Vec<Holder>,
}

impl Wait {
    /// Detail of a wait for a gRPC message from the client of a call served.
    pub const OF_REQUEST: &str = "of a request";
    /// Detail of a wait for a gRPC message from the server of a call made.
    pub const OF_RESPONSE: &str = "of a response";

    /// A wait of which no more is known than its kind and what it is for.
    pub fn new(kind: WaitKind, resource: Option<Resource>) -> Self {
        Self {
            kind,
            lower_bound: true,
            queue: None,
            senders: None,
            resource,
            deadline_in_ns: None,
            wait_ns: 0,
            about: None,
            mark: Mark::default(),
        }
    }

    /// The same with what few waits have.
    #[must_use]
    pub fn with(self, about: About) -> Self {
        Self { about: (about != About::default()).then(|| Box::new(about)), ..self }
    }

    /// What few waits have, to be filled in.
    pub fn about_mut(&mut self) -> &mut About {
        self.about.get_or_insert_default()
    }
}

impl Deref for Wait {
    type Target = About;

    fn deref(&self) -> &About {
        static NOTHING: About =
            About { detail: None, task: None, stream: None, fd: None, holders: Vec::new() };
        self.about.as_deref().unwrap_or(&NOTHING)
    }
}

/// What a task waits for.
// A wait as it is told: flat, and in this order.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema), schemars(rename = "Wait"))]
struct Told {
    /// The kind of resource.
    kind: WaitKind,
    /// Identity of the resource: equal for all that wait on one thing.
    resource: Option<Resource>,
    /// Details for a person: deadline, peer address, permits wanted.
    detail: Option<Arc<str>>,
    /// The task waited for, of a join handle.
    task: Option<TaskId>,
    /// The gRPC stream whose message is awaited.
    stream: Option<StreamId>,
    /// Time until the deadline of a sleep or timeout; negative once it passed.
    deadline_in_ns: Option<i64>,
    /// File descriptor of a socket.
    fd: Option<i32>,
    /// Who holds it, as far as seen.
    holders: Vec<Holder>,
    /// How many wait in its queue, this one included, where that is known.
    queue: Option<u32>,
    /// Of a channel's receiver: how many senders there are in all, seen or
    /// not, by the channel's own count. None while weak senders exist, of
    /// which more can be made.
    #[serde(default)]
    senders: Option<u32>,
    /// How long this wait has lasted.
    wait_ns: u64,
    /// `wait_ns` is a lower bound: the begin of the wait was not seen.
    lower_bound: bool,
}

impl From<Wait> for Told {
    fn from(wait: Wait) -> Self {
        let Wait { kind, lower_bound, queue, senders, resource, wait_ns, about, .. } = wait;
        let deadline_in_ns = wait.deadline_in_ns;
        let About { detail, task, stream, fd, holders } = about.map(|it| *it).unwrap_or_default();
        Self {
            kind,
            resource,
            detail,
            task,
            stream,
            deadline_in_ns,
            fd,
            holders,
            queue,
            senders,
            wait_ns,
            lower_bound,
        }
    }
}

impl From<Told> for Wait {
    fn from(told: Told) -> Self {
        let Told { kind, resource, deadline_in_ns, queue, senders, wait_ns, lower_bound, .. } =
            told;
        let Told { detail, task, stream, fd, holders, .. } = told;
        let all = Self {
            lower_bound,
            queue,
            senders,
            deadline_in_ns,
            wait_ns,
            ..Self::new(kind, resource)
        };
        all.with(About { detail, task, stream, fd, holders })
    }
}

#[cfg(feature = "cli")]
impl schemars::JsonSchema for Wait {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Told::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Told::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_small_and_told_whole() {
        assert!(size_of::<Option<Wait>>() <= 64);
        let plain = Wait::new(WaitKind::Notify, Resource::at(0x7f10));
        let about = About { task: Some(TaskId(7)), fd: Some(3), ..About::default() };
        let full = Wait { queue: Some(2), ..plain.clone().with(about) };
        for (wait, task, fd) in [(plain, None, None), (full, Some(TaskId(7)), Some(3))] {
            assert_eq!((wait.task, wait.fd), (task, fd));
            let json = serde_json::to_value(&wait).unwrap();
            assert_eq!(json.as_object().unwrap().len(), 12, "{json}");
            assert_eq!(serde_json::from_value::<Wait>(json).unwrap(), wait);
        }
    }
}
