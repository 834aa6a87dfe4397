//! The cases: what is done, and what is true then.

use std::time::Duration;

use crate::model::VerdictKind::{
    self, CancelledButRunning, ConnectionFlowControl, HandlerNotReading, HandlerWaiting, Healthy,
    IdleByDesign, Leaked, Network, PeerFrozen, PeerNotReading, QueuedForSlot, RateLimited,
    TcpBackpressure, WaitingForPeer, WorkerBlocked,
};
use crate::reference::proxy::{Flow, Path, Pipe};

/// One case.
#[derive(Debug)]
pub struct Case {
    /// What `--case` takes.
    pub name: &'static str,
    /// What happens, in a line.
    pub about: &'static str,
    /// The client's scenario.
    pub scenario: &'static str,
    /// More arguments of the server.
    pub server_args: &'static [&'static str],
    /// More arguments of the client.
    pub client_args: &'static [&'static str],
    /// What is done to them once the streams run.
    pub fault: Fault,
    /// The streams that are judged: those of this method.
    pub method: &'static str,
    /// What the server must say of them.
    pub server: Truth,
    /// What the client must say.
    pub client: Truth,
    /// How long that may take: 2 s from the stall, more where it says so.
    pub within: Duration,
    /// Its handlers compute: cases beside it would have too little of the
    /// processors to be in time, and so would it.
    pub computes: bool,
}

/// What is done to a case's processes and to what lies between them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing: the scenario is the fault.
    None,
    /// A proxy lies between, and its path becomes this.
    Path(Path),
    /// A proxy lies between and resets the connections.
    Cut,
    /// A proxy lies between that hides that the client is killed.
    Vanish,
    /// SIGSTOP to the server.
    FreezeServer,
    /// SIGSTOP to the client.
    FreezeClient,
    /// SIGSTOP to the client and, three seconds later, SIGCONT.
    Thaw,
    /// SIGKILL to the client.
    KillClient,
    /// Network namespaces lie between, and their link loses all packets.
    Blackhole,
    /// Network namespaces lie between, and their link drops what exceeds a
    /// small rate.
    Loss,
}

/// What one side must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// One answer. What it may name besides, as its twin, is in the second list.
    Is(VerdictKind, &'static [VerdictKind]),
    /// Not to be told apart from this side: one of them, with all others named.
    Either(&'static [VerdictKind]),
    /// Any of these is true, depending on which worker does what.
    AnyOf(&'static [VerdictKind]),
    /// At least one stream says this; the others are not concerned.
    Some(VerdictKind),
    /// Of a stream that its tasks outlive, live or ended: any of these.
    LeftAs(&'static [VerdictKind]),
    /// No alarm, for as long as one looks.
    Quiet,
    /// The streams are gone.
    Gone,
    /// This side cannot be asked, or has no part in it.
    Unasked,
}

const S: Duration = Duration::from_secs(1);
/// From the stall.
const STALL: Duration = S.saturating_mul(2);
/// Where only an unanswered PING tells, its interval comes on top.
const PING: Duration = S.saturating_mul(3);
/// An answer that is late is told from one that takes its time by this alone.
const OWED: Duration = S.saturating_mul(12);
/// A window that is to fill first, or a task that gets time to tidy up.
const LATER: Duration = S.saturating_mul(4);

const FORWARD: Pipe = Pipe { flow: Flow::Forward, delay: Duration::ZERO, bytes_per_second: 0 };
const HELD: Pipe = Pipe { flow: Flow::Hold, ..FORWARD };
const LOST: Pipe = Pipe { flow: Flow::Swallow, ..FORWARD };
const LATE: Pipe = Pipe { delay: Duration::from_millis(150), ..FORWARD };
const NARROW: Pipe = Pipe { bytes_per_second: 1 << 20, ..FORWARD };

const fn both(pipe: Pipe) -> Path {
    Path { to_server: pipe, to_client: pipe, hides_ends: false }
}

const FROZEN: Truth = Truth::Is(PeerFrozen, &[Network]);
const BEYOND: Truth = Truth::Either(&[PeerFrozen, Network]);
const CUT_OFF: Truth = Truth::Is(Network, &[PeerFrozen]);
const WAITS: Truth = Truth::Is(WaitingForPeer, &[]);

const BASE: Case = Case {
    name: "",
    about: "",
    scenario: "",
    server_args: &[],
    client_args: &[],
    fault: Fault::None,
    method: "",
    server: Truth::Unasked,
    client: Truth::Unasked,
    within: STALL,
    computes: false,
};

const ECHO: &str = "/grpc.examples.echo.Echo/BidirectionalStreamingEcho";
const UPLOAD: &str = "/grpc.testing.TestService/StreamingInputCall";
const DOWNLOAD: &str = "/grpc.testing.TestService/StreamingOutputCall";
const UNARY: &str = "/grpc.testing.TestService/UnaryCall";
const FLOOD: &str = "/taskprof.lab.v1.Lab/Flood";
const TRICKLE: &str = "/taskprof.lab.v1.Lab/SlowTrickle";

macro_rules! lab {
    ($method:literal) => {
        concat!("/taskprof.lab.v1.Lab/", $method)
    };
}

/// All of them, in the order of the table.
pub static CASES: &[Case] = &[
    Case {
        name: "unread-stream",
        about: "the client stops reading",
        scenario: "unread-stream",
        // More would use up the connection's window as well.
        client_args: &["--streams", "2"],
        method: DOWNLOAD,
        server: Truth::Is(PeerNotReading, &[]),
        client: Truth::Is(HandlerNotReading, &[]),
        ..BASE
    },
    Case {
        name: "huge-message",
        about: "one 3 MB message that the client does not read",
        scenario: "huge-message",
        method: TRICKLE,
        server: Truth::Is(PeerNotReading, &[]),
        client: Truth::Is(HandlerNotReading, &[]),
        ..BASE
    },
    Case {
        name: "tiny-messages",
        about: "unread 20-byte messages; h2 gives the connection up",
        scenario: "tiny-messages",
        method: FLOOD,
        server: Truth::Gone,
        client: Truth::AnyOf(&[Leaked, HandlerNotReading]),
        within: LATER,
        ..BASE
    },
    Case {
        name: "window-hogs",
        about: "three unread streams take the connection's window from a fourth",
        scenario: "window-hogs",
        method: TRICKLE,
        server: Truth::Is(ConnectionFlowControl, &[]),
        client: Truth::Is(ConnectionFlowControl, &[]),
        within: LATER,
        ..BASE
    },
    Case {
        name: "silent-upload",
        about: "the client stops sending",
        scenario: "silent-upload",
        method: UPLOAD,
        server: WAITS,
        client: Truth::Quiet,
        ..BASE
    },
    Case {
        name: "never-read",
        about: "the server does not read",
        scenario: "never-read",
        method: lab!("NeverRead"),
        server: Truth::Is(HandlerNotReading, &[]),
        client: Truth::Is(PeerNotReading, &[]),
        ..BASE
    },
    Case {
        name: "starved-upload",
        about: "uploads that the server does not read starve one that it does",
        scenario: "starved-upload",
        method: UPLOAD,
        server: Truth::Is(ConnectionFlowControl, &[]),
        client: Truth::Is(ConnectionFlowControl, &[]),
        within: OWED,
        ..BASE
    },
    Case {
        name: "block-thread",
        about: "the handler sleeps in its thread",
        scenario: "block-thread",
        method: lab!("BlockThread"),
        server: Truth::Is(WorkerBlocked, &[]),
        // Whether PINGs are answered depends on which worker it has taken.
        client: Truth::AnyOf(&[WaitingForPeer, PeerFrozen]),
        ..BASE
    },
    Case {
        name: "busy-loop",
        about: "the handler computes without an await",
        scenario: "busy-loop",
        method: lab!("BusyLoop"),
        server: Truth::Is(WorkerBlocked, &[]),
        client: Truth::AnyOf(&[WaitingForPeer, PeerFrozen]),
        computes: true,
        ..BASE
    },
    Case {
        name: "all-workers-busy",
        about: "handlers compute on every worker",
        scenario: "busy-loop",
        server_args: &["--workers", "2"],
        client_args: &["--streams", "2", "--connections", "2"],
        method: lab!("BusyLoop"),
        server: Truth::Is(WorkerBlocked, &[]),
        client: FROZEN,
        within: PING,
        computes: true,
        ..BASE
    },
    Case {
        name: "hold-mutex",
        about: "one handler keeps a lock, the others want it",
        scenario: "hold-mutex",
        method: lab!("HoldMutex"),
        // The one that has it just takes its time.
        server: Truth::Some(HandlerWaiting),
        client: WAITS,
        ..BASE
    },
    Case {
        name: "lock-cycle",
        about: "two handlers want each other's lock",
        scenario: "lock-cycle",
        method: lab!("LockCycle"),
        server: Truth::Is(HandlerWaiting, &[]),
        client: WAITS,
        ..BASE
    },
    Case {
        name: "silent-channel",
        about: "the handler waits on a channel that nobody writes to",
        scenario: "silent-channel",
        method: lab!("WaitOnSilentChannel"),
        server: Truth::Is(HandlerWaiting, &[]),
        client: WAITS,
        ..BASE
    },
    Case {
        name: "never-answer",
        about: "a unary call without an answer",
        scenario: "never-answer",
        method: lab!("NeverAnswer"),
        server: Truth::Is(HandlerWaiting, &[IdleByDesign]),
        client: WAITS,
        within: OWED,
        ..BASE
    },
    Case {
        name: "both-wait",
        about: "the client wants headers before it sends, the server a message before it answers",
        scenario: "both-wait",
        method: lab!("AnswerFirstMessage"),
        server: WAITS,
        client: WAITS,
        ..BASE
    },
    Case {
        name: "exhaust-memory",
        about: "the handler takes 64 MiB and keeps them, and the call, for two minutes",
        scenario: "exhaust-memory",
        method: lab!("ExhaustMemory"),
        // What it has taken is not for a stream's verdict to say.
        server: Truth::Is(HandlerWaiting, &[IdleByDesign]),
        client: WAITS,
        within: OWED,
        ..BASE
    },
    Case {
        name: "frozen-client",
        about: "the client's process is stopped; its stream is idle",
        scenario: "watch",
        fault: Fault::FreezeClient,
        method: ECHO,
        server: FROZEN,
        within: PING,
        ..BASE
    },
    Case {
        name: "frozen-server",
        about: "the server's process is stopped; its stream is idle",
        scenario: "watch",
        fault: Fault::FreezeServer,
        method: ECHO,
        client: FROZEN,
        within: PING,
        ..BASE
    },
    Case {
        name: "frozen-huge-window",
        about: "the client is stopped while it downloads into a huge window",
        scenario: "download",
        client_args: &["--stream-window", "1000000000", "--connection-window", "2000000000"],
        fault: Fault::FreezeClient,
        method: FLOOD,
        server: FROZEN,
        within: PING,
        ..BASE
    },
    Case {
        name: "thawed-client",
        about: "the client was stopped for 3 s, and goes on",
        scenario: "watch",
        fault: Fault::Thaw,
        method: ECHO,
        server: Truth::Quiet,
        client: Truth::Quiet,
        ..BASE
    },
    Case {
        name: "path-holds",
        about: "a proxy stops forwarding while the client downloads",
        scenario: "download",
        fault: Fault::Path(both(HELD)),
        method: FLOOD,
        server: BEYOND,
        client: BEYOND,
        within: PING,
        ..BASE
    },
    Case {
        name: "path-holds-upload",
        about: "a proxy stops forwarding while the client uploads",
        scenario: "upload",
        fault: Fault::Path(both(HELD)),
        method: UPLOAD,
        server: BEYOND,
        client: BEYOND,
        within: PING,
        ..BASE
    },
    Case {
        name: "path-swallows",
        about: "a proxy throws everything away; the stream is idle",
        scenario: "watch",
        fault: Fault::Path(both(LOST)),
        method: ECHO,
        server: BEYOND,
        client: BEYOND,
        within: PING,
        ..BASE
    },
    Case {
        name: "client-vanishes",
        about: "the client is killed, and a proxy does not tell",
        scenario: "watch",
        fault: Fault::Vanish,
        method: ECHO,
        server: BEYOND,
        within: PING,
        ..BASE
    },
    Case {
        name: "path-delays",
        about: "300 ms of round trip, and all is well",
        scenario: "ping-pong",
        fault: Fault::Path(both(LATE)),
        method: ECHO,
        server: Truth::Quiet,
        client: Truth::Quiet,
        ..BASE
    },
    Case {
        name: "path-narrows",
        about: "1 MiB a second and a sender of three",
        scenario: "download",
        fault: Fault::Path(both(NARROW)),
        method: FLOOD,
        // It moves; the socket takes no more now and then.
        server: Truth::AnyOf(&[Healthy, TcpBackpressure]),
        client: Truth::Quiet,
        ..BASE
    },
    Case {
        name: "path-cut",
        about: "the connection is reset, and the client begins anew",
        scenario: "slow-trickle",
        fault: Fault::Cut,
        method: TRICKLE,
        server: Truth::Quiet,
        client: Truth::Quiet,
        ..BASE
    },
    Case {
        name: "client-killed",
        about: "the client's process is killed",
        scenario: "watch",
        fault: Fault::KillClient,
        method: ECHO,
        server: Truth::Gone,
        ..BASE
    },
    Case {
        name: "blackhole-idle",
        about: "all packets are lost; the stream is idle",
        scenario: "watch",
        fault: Fault::Blackhole,
        method: ECHO,
        server: CUT_OFF,
        client: CUT_OFF,
        within: PING,
        ..BASE
    },
    Case {
        name: "blackhole-download",
        about: "all packets are lost while the client downloads",
        scenario: "download",
        fault: Fault::Blackhole,
        method: FLOOD,
        server: CUT_OFF,
        client: CUT_OFF,
        within: PING,
        ..BASE
    },
    Case {
        name: "loss",
        about: "a link of 2 Mbit/s drops what exceeds it",
        scenario: "download",
        fault: Fault::Loss,
        method: FLOOD,
        server: Truth::AnyOf(&[Healthy, TcpBackpressure, Network]),
        client: Truth::Quiet,
        ..BASE
    },
    Case {
        name: "slot-queue",
        about: "the server allows no more streams",
        scenario: "slot-queue",
        server_args: &["--max-streams", "4"],
        method: UNARY,
        client: Truth::Is(QueuedForSlot, &[]),
        ..BASE
    },
    Case {
        name: "rate-limited",
        about: "a limit of the server delays the messages",
        scenario: "ping-pong",
        server_args: &["--message-rate", "1"],
        method: ECHO,
        // One of them has just got its token.
        server: Truth::Some(RateLimited),
        client: Truth::Some(WaitingForPeer),
        within: LATER,
        ..BASE
    },
    Case {
        name: "leave-task-behind",
        about: "a task that holds a sender outlives its call",
        scenario: "leave-task-behind",
        method: lab!("LeaveTaskBehind"),
        server: Truth::LeftAs(&[Leaked]),
        within: LATER,
        ..BASE
    },
    Case {
        name: "kept-requests",
        about: "a task holds the requests of a cancelled call",
        scenario: "kept-requests",
        method: lab!("KeepRequests"),
        server: Truth::LeftAs(&[Leaked, CancelledButRunning]),
        within: LATER,
        ..BASE
    },
    Case {
        name: "ignore-cancellation",
        about: "a cancelled call goes on working",
        scenario: "ignore-cancellation",
        method: lab!("IgnoreCancellation"),
        server: Truth::LeftAs(&[CancelledButRunning]),
        within: LATER,
        ..BASE
    },
    Case {
        name: "dropped-upload",
        about: "uploads are cancelled while their windows are used up",
        scenario: "dropped-upload",
        method: lab!("NeverRead"),
        server: Truth::Gone,
        client: Truth::Gone,
        ..BASE
    },
    Case {
        name: "cancel-storm",
        about: "calls are cancelled after a few milliseconds",
        scenario: "cancel-storm",
        method: ECHO,
        server: Truth::Quiet,
        client: Truth::Quiet,
        ..BASE
    },
    Case {
        name: "cancelled-unary",
        about: "calls are cancelled while their handlers wait",
        scenario: "cancelled-unary",
        method: lab!("NeverAnswer"),
        server: Truth::Quiet,
        client: Truth::Quiet,
        ..BASE
    },
    Case {
        name: "instant-resets",
        about: "calls are reset in the packet that opens them",
        scenario: "instant-resets",
        method: ECHO,
        server: Truth::Quiet,
        ..BASE
    },
    Case {
        name: "health-watch",
        about: "a stream that is silent by design",
        scenario: "health-watch",
        method: "/grpc.health.v1.Health/Watch",
        server: Truth::Is(IdleByDesign, &[]),
        client: Truth::Is(IdleByDesign, &[]),
        ..BASE
    },
    Case {
        name: "slow-reader",
        about: "the client reads slowly, and all is well",
        scenario: "slow-reader",
        method: FLOOD,
        server: Truth::Quiet,
        client: Truth::Quiet,
        ..BASE
    },
    Case {
        name: "bursts",
        about: "bursts and silence, and all is well",
        scenario: "bursts",
        method: ECHO,
        server: Truth::Quiet,
        client: Truth::Quiet,
        ..BASE
    },
];

/// What a verdict is, against the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// As it is.
    Right,
    /// Nothing is said that would be wrong, but not enough.
    NotYet,
    /// It accuses somebody who has no part in it.
    Wrong,
}

impl Truth {
    /// Judges one stream's verdict.
    pub fn mark(self, kind: VerdictKind, or: &[VerdictKind]) -> Mark {
        let within = |kinds: &[VerdictKind], more: &[VerdictKind]| {
            or.iter().all(|kind| kinds.contains(kind) || more.contains(kind))
        };
        let right = match self {
            Self::Is(wanted, may) => kind == wanted && within(&[], may),
            Self::Either(all) => {
                let named = |wanted: &VerdictKind| *wanted == kind || or.contains(wanted);
                all.contains(&kind) && all.iter().all(named) && within(all, &[])
            }
            Self::AnyOf(all) | Self::LeftAs(all) => all.contains(&kind),
            Self::Some(wanted) => kind == wanted && or.is_empty(),
            Self::Quiet => !kind.is_alarm(),
            Self::Gone => false,
            Self::Unasked => true,
        };
        // The true one is named, if not alone: more time may make it surer.
        let named = match self {
            Self::Is(wanted, _) | Self::Some(wanted) => kind == wanted || or.contains(&wanted),
            Self::Either(all) => all.contains(&kind),
            Self::Gone => true,
            _ => false,
        };
        match (right, named || !kind.is_alarm()) {
            (true, _) => Mark::Right,
            (false, true) => Mark::NotYet,
            (false, false) => Mark::Wrong,
        }
    }

    /// As the table says it.
    pub fn words(self) -> String {
        let list = |kinds: &[VerdictKind], between: &str| {
            kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(between)
        };
        match self {
            Self::Is(kind, _) | Self::Some(kind) => kind.as_str().to_owned(),
            Self::Either(kinds) => list(kinds, " + "),
            Self::AnyOf(kinds) | Self::LeftAs(kinds) => list(kinds, " | "),
            Self::Quiet => "no alarm".to_owned(),
            Self::Gone => "gone".to_owned(),
            Self::Unasked => "-".to_owned(),
        }
    }
}

/// The case of that name.
pub fn find(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::load;

    #[test]
    fn every_case_has_a_name_of_its_own_and_a_scenario_that_exists() {
        for (index, case) in CASES.iter().enumerate() {
            assert!(CASES[..index].iter().all(|other| other.name != case.name), "{}", case.name);
            assert!(load::find(case.scenario).is_ok(), "{}", case.scenario);
            assert!(case.server != Truth::Unasked || case.client != Truth::Unasked);
            assert!(case.method.starts_with('/') && case.within >= STALL, "{}", case.name);
            assert_eq!(find(case.name).map(|found| found.method), Some(case.method));
        }
    }

    #[test]
    fn a_verdict_is_right_only_if_it_names_what_cannot_be_told_apart() {
        assert_eq!(BEYOND.mark(PeerFrozen, &[Network]), Mark::Right);
        assert_eq!(BEYOND.mark(Network, &[PeerFrozen]), Mark::Right);
        assert_eq!(BEYOND.mark(PeerFrozen, &[]), Mark::NotYet);
        assert_eq!(BEYOND.mark(PeerFrozen, &[Network, Leaked]), Mark::NotYet);
        assert_eq!(BEYOND.mark(WaitingForPeer, &[]), Mark::NotYet);
        assert_eq!(BEYOND.mark(PeerNotReading, &[]), Mark::Wrong);
        assert_eq!(FROZEN.mark(PeerFrozen, &[]), Mark::Right);
        assert_eq!(FROZEN.mark(Network, &[]), Mark::Wrong);
        assert_eq!(WAITS.mark(WaitingForPeer, &[PeerFrozen]), Mark::NotYet);
        assert_eq!(WAITS.mark(HandlerWaiting, &[]), Mark::Wrong);
        assert_eq!(Truth::Quiet.mark(WaitingForPeer, &[Network]), Mark::Right);
        assert_eq!(Truth::Quiet.mark(Network, &[]), Mark::Wrong);
        assert_eq!(Truth::Gone.mark(Network, &[]), Mark::NotYet);
    }
}
