//! What a suspended task waits for, and who holds it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Location, Stack, StreamId, TaskId};

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

/// One thing that a task holds in a live local.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Held {
    /// What it is.
    pub kind: HeldKind,
    /// Identity of the resource, as in [`Wait::resource`].
    pub resource: Arc<str>,
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
}

/// Something else that a task awaits at the same time (`select!`, `join!`,
/// `FuturesUnordered`), or keeps and no longer polls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Branch {
    /// Its frames, innermost first, down to where it leaves the task's stack.
    pub stack: Arc<Stack>,
    /// What it waits for.
    pub wait: Option<Box<Wait>>,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Wait {
    /// The kind of resource.
    pub kind: WaitKind,
    /// Identity of the resource: equal for all that wait on one thing.
    pub resource: Option<Arc<str>>,
    /// Details for a person: deadline, peer address, permits wanted.
    pub detail: Option<Arc<str>>,
    /// The task waited for, of a join handle.
    pub task: Option<TaskId>,
    /// The gRPC stream whose message is awaited.
    pub stream: Option<StreamId>,
    /// Time until the deadline of a sleep or timeout; negative once it passed.
    pub deadline_in_ns: Option<i64>,
    /// File descriptor of a socket.
    pub fd: Option<i32>,
    /// Who holds it, as far as seen.
    pub holders: Vec<Holder>,
    /// How many wait in its queue, this one included, where that is known.
    pub queue: Option<u64>,
    /// Of a channel's receiver: how many senders there are in all, seen or
    /// not, by the channel's own count.
    #[serde(default)]
    pub senders: Option<u64>,
    /// How long this wait has lasted.
    pub wait_ns: u64,
    /// `wait_ns` is a lower bound: the begin of the wait was not seen.
    pub lower_bound: bool,
}
