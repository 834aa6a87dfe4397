//! Plain data, the middle of the house: what a [`Snapshot`] holds.
//!
//! Nothing here has behaviour beyond naming and formatting itself. Sources
//! (hooks, gRPC layers, memory readers) fill these types in; analysis,
//! rendering and the debug server only read them. Durations are nanoseconds
//! and say so in their names (`_ns`); identifiers are strings in JSON, because
//! JavaScript rounds integers above 2^53.

mod finding;
mod history;
mod id;
mod profile;
#[cfg(test)]
pub(crate) mod sample;
mod snapshot;
mod stack;
mod stream;
mod task;
mod time;
mod verdict;
mod wait;
mod wire;
mod worker;

pub use finding::{Check, Confidence, Edge, Finding, FindingKind, Report, Severity};
pub use history::{Growing, GrowthPoint, History};
pub use id::{ConnectionId, EndpointId, Resource, RuntimeId, StreamId, TaskId};
pub use profile::{CpuProfile, CpuSample};
pub use snapshot::{Counters, Coverage, Missing, Process, Reason, SCHEMA_VERSION, Snapshot};
pub use stack::{Frame, FrameKind, Location, Stack, StackSource};
pub use stream::{
    BodyState, Calls, Connection, ConnectionCounters, ConnectionTotals, Deadline, EndedStream,
    Endpoint, Http2State, Phase, Side, Stream, StreamKind, StreamStatus, TraceContext, Traffic,
    Transport, code_name,
};
pub use task::{Task, TaskState};
pub use time::{Timestamp, human_duration};
pub use verdict::{Verdict, VerdictKind, Who};
pub use wait::{About, Branch, Held, HeldKind, Holder, Mark, Wait, WaitKind};
pub use wire::{
    Goaway, Heartbeat, Http2, StreamEvent, StreamEventKind, StreamWire, TcpInfo, TcpInfoMore,
    WireReset,
};
pub use worker::{Blocked, Flavor, Pause, Runtime, Worker, WorkerState};
