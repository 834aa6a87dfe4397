//! What is wrong now, and how sure we are.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ConnectionId, Location, Resource, StreamId, TaskId, Timestamp, WaitKind};

/// What was found. The set is closed, so that programs can match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A worker has not come back from a poll.
    BlockedWorker,
    /// The whole process stood still.
    ProcessPaused,
    /// Streams wait and nothing moves.
    StalledStream,
    /// A stream's deadline has passed and it is still running.
    DeadlinePassed,
    /// A stream was cancelled and its handler goes on.
    CancelledButRunning,
    /// A task still lives though its stream has ended.
    LeakedTask,
    /// A task spends nearly all its life inside polls.
    BusyTask,
    /// The registry is full: some tasks or streams are not seen.
    RegistryFull,
    /// Tasks wait on each other in a circle.
    Deadlock,
    /// A task waits for what only a future that it no longer polls could release.
    Futurelock,
    /// Many tasks wait for one lock that one task holds.
    LockConvoy,
    /// A channel whose other end does not move.
    StuckChannel,
    /// Nothing is left that could wake the task.
    Unwakeable,
    /// A group of alike tasks that only grows.
    GrowingGroup,
}

impl FindingKind {
    /// The word used in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlockedWorker => "blocked_worker",
            Self::ProcessPaused => "process_paused",
            Self::StalledStream => "stalled_stream",
            Self::DeadlinePassed => "deadline_passed",
            Self::CancelledButRunning => "cancelled_but_running",
            Self::LeakedTask => "leaked_task",
            Self::BusyTask => "busy_task",
            Self::RegistryFull => "registry_full",
            Self::Deadlock => "deadlock",
            Self::Futurelock => "futurelock",
            Self::LockConvoy => "lock_convoy",
            Self::StuckChannel => "stuck_channel",
            Self::Unwakeable => "unwakeable",
            Self::GrowingGroup => "growing_group",
        }
    }
}

/// How bad. Ordered: worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Something does not move.
    Warning,
    /// Other work suffers from it now.
    Critical,
}

/// How sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// It fits what was seen; other causes do too.
    Suspected,
    /// What was seen has hardly another cause.
    Likely,
    /// Follows from what was seen.
    Proven,
}

/// One task waits for what another one holds; or for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Edge {
    /// The task that waits.
    pub waits: TaskId,
    /// For what.
    pub kind: WaitKind,
    /// Identity of the resource.
    pub resource: Option<Resource>,
    /// Where it waits.
    pub at: Option<Location>,
    /// The task that holds it, or is to act.
    pub holder: TaskId,
    /// The holder's local variable that is the guard or the channel's end.
    pub local: Option<Arc<str>>,
    /// Where that local lives.
    pub held_at: Option<Location>,
    /// The holder keeps it in a future that it does not poll.
    pub dormant: bool,
}

/// One answer to "what is wrong now". Alike cases are one finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Finding {
    /// Stable while the same trouble lasts, so that a client can follow it.
    pub id: String,
    /// What.
    pub kind: FindingKind,
    /// How bad.
    pub severity: Severity,
    /// How sure.
    pub confidence: Confidence,
    /// One line for the list.
    pub title: String,
    /// Full sentences: what was seen, what it rests on, what would tell more.
    pub evidence: Vec<String>,
    /// `file:line` to look at first, if there is one.
    pub place: Option<String>,
    /// gRPC method concerned.
    pub method: Option<String>,
    /// For how long; the oldest, if there are several.
    pub since_ns: u64,
    /// How many cases it stands for.
    pub count: u64,
    /// Tasks concerned, worst first; at most 100, `count` says how many in all.
    pub tasks: Vec<TaskId>,
    /// Streams concerned, worst first; at most 100.
    pub streams: Vec<StreamId>,
    /// Connections concerned; at most 100.
    pub connections: Vec<ConnectionId>,
    /// Worker concerned.
    pub worker: Option<u32>,
    /// Who waits for whom, in the order of a circle if it is one; at most 32.
    #[serde(default)]
    pub edges: Vec<Edge>,
}

/// One thing that was looked for: "all clear" names what it covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Check {
    /// What was looked for.
    pub kind: FindingKind,
    /// Among how many tasks, streams or workers.
    pub examined: u64,
    /// Why it could not be looked for, if it could not.
    pub unavailable: Option<String>,
}

/// The answer first: findings, worst first, and what was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Report {
    /// When the snapshot it rests on was taken.
    pub taken_at: Timestamp,
    /// Worst first, then longest.
    pub findings: Vec<Finding>,
    /// What was looked for.
    pub checked: Vec<Check>,
}
