//! What each request answers with. Lists are never null; where one can be
//! long it is the last field, so that it can be written piece by piece.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::model::{
    Blocked, Check, Connection, Counters, Coverage, Finding, Location, Pause, Process, Resource,
    Runtime, RuntimeId, Snapshot, Stack, Stream, StreamId, Task, TaskId, TaskState, Timestamp,
    Verdict, WaitKind, Worker,
};

/// What every answer begins with.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Head {
    /// Version of the layout.
    pub schema: u32,
    /// When the snapshot was taken that it rests on.
    pub taken_at: Timestamp,
    /// Of which process.
    pub process: Process,
    /// What was seen, against what is alive.
    pub coverage: Coverage,
}

impl Head {
    /// The head of answers made from this snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self {
            schema: snapshot.schema,
            taken_at: snapshot.taken_at,
            process: snapshot.process.clone(),
            coverage: snapshot.coverage.clone(),
        }
    }
}

/// How many tasks are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[allow(missing_docs)] // the states' own names
pub struct StateCounts {
    pub scheduled: u64,
    pub running: u64,
    pub idle: u64,
    pub unknown: u64,
}

impl StateCounts {
    /// Counts one task.
    pub fn add(&mut self, state: TaskState) {
        *match state {
            TaskState::Scheduled => &mut self.scheduled,
            TaskState::Running => &mut self.running,
            TaskState::Idle => &mut self.idle,
            TaskState::Unknown => &mut self.unknown,
        } += 1;
    }
}

/// `GET /debug/tasks?group=none`
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct TasksAnswer {
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub head: Head,
    /// Tasks listed in the snapshot.
    pub total: u64,
    /// Of those, matched by the filter.
    pub matched: u64,
    /// Give it as `cursor=` for the rest; absent on the last page.
    pub next_cursor: Option<String>,
    /// The tasks of this page.
    pub tasks: Vec<Task>,
}

/// `GET /debug/tasks?group=stack`
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct TaskGroupsAnswer {
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub head: Head,
    /// Tasks listed in the snapshot.
    pub total: u64,
    /// Of those, matched by the filter and so in some group.
    pub matched: u64,
    /// How many groups they make.
    pub groups_total: u64,
    /// Give it as `cursor=` for the rest; absent on the last page.
    pub next_cursor: Option<String>,
    /// The groups of this page.
    pub groups: Vec<TaskGroup>,
}

/// Tasks that are alike: at the same place of the program's own code, in the
/// same kind of wait, for the same method.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct TaskGroup {
    /// Stable name of the group within this process.
    pub key: String,
    /// Innermost function of the program's own code, if a stack tells.
    pub function: Option<Arc<str>>,
    /// Its place, or else the place that spawned the tasks.
    pub place: Option<Location>,
    /// Innermost function of all: what they wait in.
    pub waiting_in: Option<Arc<str>>,
    /// Where they were spawned.
    pub spawned_at: Option<Location>,
    /// gRPC method that caused them.
    pub method: Option<Arc<str>>,
    /// What they wait for, if that is known.
    pub wait: Option<WaitKind>,
    /// The one thing that all of them wait for, if it is one.
    pub resource: Option<Resource>,
    /// The one task that holds what all of them wait for, if it is one.
    pub holder: Option<TaskId>,
    /// How many.
    pub count: u64,
    /// How many in each state.
    pub states: StateCounts,
    /// Age of the oldest.
    pub oldest_ns: u64,
    /// Longest time in the current state.
    pub longest_state_ns: u64,
    /// Longest wait; where that is not known, longest time in the state.
    pub longest_wait_ns: u64,
    /// Time inside polls, all together.
    pub busy_ns: u64,
    /// Polls, all together.
    pub polls: u64,
    /// Longest single poll.
    pub longest_poll_ns: u64,
    /// Ten of them, oldest first.
    pub example_ids: Vec<TaskId>,
    /// Stack of the first of them that has one.
    pub stack: Option<Arc<Stack>>,
}

/// A task by its most telling facts.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct TaskRef {
    /// Which.
    pub id: TaskId,
    /// Where it was spawned.
    pub spawned_at: Option<Location>,
    /// gRPC method that caused it.
    pub method: Option<Arc<str>>,
    /// What it is doing.
    pub state: TaskState,
    /// For how long.
    pub state_ns: u64,
    /// What it waits for, if that is known.
    pub wait: Option<WaitKind>,
}

impl From<&Task> for TaskRef {
    fn from(task: &Task) -> Self {
        Self {
            id: task.id,
            spawned_at: task.spawned_at.as_deref().cloned(),
            method: task.method.clone(),
            state: task.state,
            state_ns: task.state_ns,
            wait: task.waits_for(),
        }
    }
}

/// `GET /debug/tasks/{id}`
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct TaskAnswer {
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub head: Head,
    /// The task.
    pub task: Task,
    /// The task that spawned it, if it lives.
    pub parent: Option<TaskRef>,
    /// How many live tasks it spawned.
    pub children_total: u64,
    /// Those, at most 1000, oldest first.
    pub children: Vec<TaskRef>,
    /// The gRPC stream that caused it, alive or ended, if still known.
    pub stream: Option<Stream>,
    /// What holds that stream up.
    pub verdict: Option<Verdict>,
    /// Polls of it that blocked a worker: the one that lasts, then recent ones,
    /// newest first.
    pub blocked: Vec<Blocked>,
}

/// A stream, and what holds it up.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct JudgedStream<'a> {
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub stream: &'a Stream,
    /// Which side is stuck, and why.
    pub verdict: &'a Verdict,
}

/// A connection, and what holds its streams up.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct JudgedConnection<'a> {
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub connection: &'a Connection,
    /// Its live streams by verdict.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// The stream that uses up most of its send window: what the peer has not
    /// read of it.
    pub send_hog: Option<Hog>,
    /// The stream that uses up most of its receive window: what our side has
    /// not read of it.
    pub recv_hog: Option<Hog>,
}

/// A stream of which much is unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Hog {
    /// Which.
    pub stream: StreamId,
    /// Bytes of it that its receiver has not read.
    pub unread_bytes: u64,
}

/// `GET /debug/streams`
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct StreamsAnswer<'a> {
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub head: Head,
    /// Streams looked at: live ones, and ended ones if the filter asks for them.
    pub total: u64,
    /// Of those, matched by the filter.
    pub matched: u64,
    /// Give it as `cursor=` for the rest; absent on the last page.
    pub next_cursor: Option<String>,
    /// The streams of this page.
    pub streams: Vec<JudgedStream<'a>>,
}

/// `GET /debug/streams/{id}`
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct StreamAnswer<'a> {
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub head: Head,
    /// The stream.
    pub stream: JudgedStream<'a>,
    /// The connection that carries it, if known.
    pub connection: Option<JudgedConnection<'a>>,
    /// How many live tasks it caused.
    pub tasks_total: u64,
    /// Those, at most 1000, oldest first.
    pub tasks: Vec<TaskRef>,
    /// Findings that name it.
    pub findings: Vec<Finding>,
}

/// `GET /debug/connections`
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct ConnectionsAnswer<'a> {
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub head: Head,
    /// All connections.
    pub connections: Vec<JudgedConnection<'a>>,
}

/// `GET /debug/workers`
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct WorkersAnswer {
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub head: Head,
    /// Polls longer than this count as blocked.
    pub blocked_threshold_ns: u64,
    /// Runtimes, by id.
    pub runtimes: Vec<Runtime>,
    /// Workers, by runtime and index.
    pub workers: Vec<Worker>,
    /// Polls over the threshold: those that last, then recent ones.
    pub blocked: Vec<Blocked>,
    /// Recent times at which the process stood still.
    pub pauses: Vec<Pause>,
}

/// `GET /debug/findings` and the event `findings`
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct FindingsAnswer {
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub head: Head,
    /// What is wrong now, worst first.
    pub findings: Vec<Finding>,
    /// What was looked for: an empty list of findings covers this and no more.
    pub checked: Vec<Check>,
}

/// The event `counters`
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct CountersEvent {
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub head: Head,
    /// Totals since the start.
    pub counters: Counters,
    /// Listed tasks by state.
    pub states: StateCounts,
    /// Live streams.
    pub streams: u64,
    /// Live streams by phase.
    pub phases: BTreeMap<&'static str, u64>,
    /// Live streams by verdict, without what only await chains tell.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Live connections.
    pub connections: u64,
    /// Workers, and how many of them are blocked.
    pub workers: u64,
    #[allow(missing_docs)]
    pub workers_blocked: u64,
    /// Time all workers were busy, since the start.
    pub busy_ns: u64,
    /// Findings by severity.
    pub findings: BTreeMap<&'static str, u64>,
}

/// One runtime, in `GET /healthz`.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct HealthRuntime {
    /// Which.
    pub id: RuntimeId,
    /// Its name.
    pub name: Arc<str>,
    /// Number of workers; 0 where only memory shows the runtime.
    pub workers: u32,
    /// Of those, blocked now.
    pub workers_blocked: u32,
    /// At least one worker is free to poll; null where polls are not observed.
    pub live: Option<bool>,
    /// Tasks alive.
    pub alive_tasks: u64,
}

/// `GET /healthz`
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct HealthAnswer {
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub head: Head,
    /// The profiler lives: `ok`.
    pub status: &'static str,
    /// Whether the watched runtimes do.
    pub runtimes: Vec<HealthRuntime>,
}

/// `POST /debug/log`
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct LogAnswer {
    /// Sends and Recvs are logged now.
    pub on: bool,
    /// How many live streams it concerns.
    pub streams: u64,
    /// The stream it was asked for.
    pub stream: Option<StreamId>,
    /// The method it was asked for.
    pub method: Option<String>,
}

/// Any answer with a status of 400 or above to a JSON request.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct ProblemAnswer {
    /// What is wrong with the request.
    pub error: String,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
}
