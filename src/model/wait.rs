//! What a suspended task waits for, and who holds it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Location, TaskId};

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
    /// Details for a person: deadline, peer address, queue.
    pub detail: Option<Arc<str>>,
    /// Who holds it, as far as seen.
    pub holders: Vec<Holder>,
    /// How many wait in its queue, this one included, where that is known.
    pub queue: Option<u64>,
    /// How long this wait has lasted.
    pub wait_ns: u64,
    /// `wait_ns` is a lower bound: the begin of the wait was not seen.
    pub lower_bound: bool,
}
