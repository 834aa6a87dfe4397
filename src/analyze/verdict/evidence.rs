//! Verdicts in words: one sentence a person understands, with its figures.

use super::super::{waits, words};
use super::cause::{Cause, Ruling};
use super::handler::Why;
use super::link::Link;
use super::{Hog, Judge};
use crate::model::{
    Blocked, Side, Stream, StreamId, TaskId, Traffic, Verdict, WireReset, human_duration as human,
};

/// The verdict, told.
pub fn verdict(judge: &Judge<'_>, stream: &Stream, ruling: &Ruling<'_>) -> Verdict {
    let told = Teller { judge, stream };
    let mut evidence = told.sentence(ruling);
    if !evidence.ends_with('.') {
        evidence.push('.');
    }
    Verdict {
        kind: ruling.cause.kind(),
        who: ruling.cause.who(),
        since_ns: ruling.since_ns.min(stream.age_ns),
        confidence: ruling.confidence,
        evidence,
        or: ruling.or.to_vec(),
        told_apart_by: (!ruling.told_apart_by.is_empty()).then(|| ruling.told_apart_by.to_owned()),
        hog: hog(&ruling.cause),
        task: task(stream, &ruling.cause),
    }
}

fn hog(cause: &Cause<'_>) -> Option<StreamId> {
    match cause {
        Cause::LinkWindowClosed { hog } | Cause::Starved { hog } => hog.map(|(id, _)| id),
        _ => None,
    }
}

fn task(stream: &Stream, cause: &Cause<'_>) -> Option<TaskId> {
    match cause {
        Cause::OwnPoll(blocked)
        | Cause::LinkPoll(blocked)
        | Cause::AllWorkers(blocked)
        | Cause::BehindPoll(blocked) => blocked.task,
        Cause::Knot(knot) => Some(knot.task.id),
        Cause::Unread { .. } | Cause::Owes | Cause::Cancelled | Cause::WasReset(_) => stream.task,
        _ => None,
    }
}

struct Teller<'s> {
    judge: &'s Judge<'s>,
    stream: &'s Stream,
}

impl Teller<'_> {
    fn sentence(&self, ruling: &Ruling<'_>) -> String {
        let since = human(ruling.since_ns);
        let peer = self.peer();
        match &ruling.cause {
            Cause::Over => self.ended(),
            Cause::Moves => "It moves, or has not stood still for a second".to_owned(),
            Cause::Slow { gap_ns } => format!(
                "The {peer} reads slowly but steadily: it has let us wait up to {} before and \
                 opened its window again",
                human(*gap_ns)
            ),
            Cause::SlowReads { gap_ns } => format!(
                "Our side reads slowly but steadily: up to {} passed between two messages before",
                human(*gap_ns)
            ),
            Cause::PingAwaited => format!(
                "Its window has been used up for {since}; a PING is on its way, whose answer will \
                 tell whether the {peer} lives"
            ),
            Cause::Works => format!(
                "Our handler has worked for {since}, which may be its business{}",
                self.doing()
            ),
            Cause::NothingToSay => format!(
                "The transport has asked for the next message for {since} and there is none: a \
                 subscription without news looks like this{}",
                self.spoke()
            ),
            Cause::Silent => {
                format!("Silent for {since}; its method is declared to be silent for long")
            }
            Cause::PeerToSpeak { alive } => {
                let waits = match self.stream.received.messages {
                    0 => format!("We have waited for the {peer} for {since}"),
                    n => {
                        format!("We have waited {since} for the {peer}, after {n} of its messages")
                    }
                };
                let lives = match alive {
                    Some(ago) => format!("; its transport was last heard of {} ago", human(*ago)),
                    None => String::new(),
                };
                waits + &self.spoke() + &lives
            }
            Cause::OwnPoll(blocked) => format!("Its own task {}", poll(blocked)),
            Cause::LinkPoll(blocked) => {
                format!("The task that drives its connection {}", poll(blocked))
            }
            Cause::AllWorkers(blocked) => format!(
                "No worker of its runtime is free; the last, worker {}, {}",
                blocked.worker,
                poll(blocked)
            ),
            Cause::BehindPoll(blocked) => format!(
                "Nothing has moved on it for {since}, and its connection's task seems to wait \
                 behind task {}, which {}",
                blocked.task.map_or_else(|| "?".to_owned(), |task| task.to_string()),
                poll(blocked)
            ),
            Cause::Cancelled => self.cancelled(),
            Cause::LeftBehind { held } => self.left_behind(*held, &since),
            Cause::WasReset(reset) => format!(
                "{} {since} ago, and our objects live on{}",
                self.reset(reset),
                self.doing()
            ),
            Cause::TransportGone => format!(
                "Its connection is closed, and our objects have lived on for {since}{}",
                self.doing()
            ),
            Cause::Throttled => {
                format!("A rate limit of ours has kept it waiting for a token for {since}")
            }
            Cause::NoSlot { open, most } => format!(
                "No HEADERS have been sent for {since}: {} open on the connection, and the \
                 {peer} allows {most}",
                if *open == 1 { "1 stream is".to_owned() } else { format!("{open} streams are") }
            ),
            Cause::NotDispatched => {
                format!("The transport has not begun with it for {since}: no HEADERS were sent")
            }
            Cause::Lossy(link) => lossy(link),
            Cause::SocketUnread(link) => format!(
                "The {peer}'s kernel answers but has no room: its process has not read its socket \
                 for {since}{}",
                queued(link)
            ),
            Cause::OwnSocketUnread(link) => format!(
                "{} lie in our own kernel, and our transport has not read them for {since}",
                link.connection
                    .tcp
                    .as_ref()
                    .map_or_else(|| "Bytes".to_owned(), |tcp| bytes(tcp.unread_bytes.into()))
            ),
            Cause::PingLate { link, blocked } => self.ping(link, *blocked, &since),
            Cause::BeatLate { link, late_ns, .. } => format!(
                "The {peer}'s application has not answered the heartbeat for {}{}",
                human(*late_ns),
                match link.alive_ago_ns().filter(|ago| ago < late_ns) {
                    Some(ago) => format!(
                        ", while its transport was heard of {} ago: its tasks do not run",
                        human(ago)
                    ),
                    None => ", and nothing else has come from it since".to_owned(),
                }
            ),
            Cause::SocketFull(link) => {
                format!(
                    "Our kernel has taken no bytes on this connection for {since}{}",
                    queued(link)
                )
            }
            Cause::WindowClosed { closed_ns } => self.window(*closed_ns),
            Cause::Hogs { bytes: out } => format!(
                "The {peer} does not read it: {} of it are unread there, and with what else is \
                 unread they have used up the connection's window for {since}",
                bytes(*out)
            ),
            Cause::LinkWindowClosed { hog } => format!(
                "The connection's window has been used up for {since}, the stream's own has {} \
                 left{}",
                bytes(self.stream.wire.as_ref().map_or(0, |wire| wire.send_window.max(0) as u64)),
                self.hogged(*hog, "are not read by the peer")
            ),
            Cause::Unsent { link } => format!(
                "Windows are open{} and the socket takes bytes, yet nothing of this stream has \
                 gone for {since}",
                match link.and_then(Link::http2) {
                    Some(http2) =>
                        format!(" (connection {})", bytes(http2.send_window.max(0) as u64)),
                    None => String::new(),
                }
            ),
            Cause::NotTaken { counted } => format!(
                "{} handed to the transport, and it has not asked for more for {since}{}",
                words::count(self.stream.sent.messages, "message"),
                if *counted {
                    "; the socket takes bytes, so an HTTP/2 window is closed"
                } else {
                    ""
                }
            ),
            Cause::Unread { bytes: unread } => format!(
                "{} of the {peer} have come and our {} has not read them for {since}{}",
                bytes(*unread),
                match self.stream.side {
                    Side::Server => "handler",
                    Side::Client => "caller",
                },
                self.doing()
            ),
            Cause::Starved { hog } => format!(
                "Our side waits for the {peer}, which may not send: the connection's receive \
                 window has been used up for {since}{}",
                self.hogged(*hog, "lie unread on our side")
            ),
            Cause::Knot(knot) => {
                let mut text = words::sentence(&waits::sentence(knot.task, knot.wait));
                text.pop();
                text + &self.knot(knot.wait, knot.why)
            }
            Cause::Owes => format!(
                "The request has ended and the answer has been owed for {since}{}",
                self.doing()
            ),
        }
    }

    fn peer(&self) -> &'static str {
        match self.stream.side {
            Side::Server => "client",
            Side::Client => "server",
        }
    }

    fn ended(&self) -> String {
        let ago = human(self.stream.ended_ago_ns.unwrap_or(0));
        match (&self.stream.status, &self.stream.cancel_reason) {
            (Some(status), _) => format!("It ended {ago} ago with {}", status.name),
            (None, Some(reason)) => format!("It ended {ago} ago: {reason}"),
            (None, None) => format!("It ended {ago} ago"),
        }
    }

    fn cancelled(&self) -> String {
        let ago = human(self.stream.cancelled_ago_ns.unwrap_or(0));
        let why = self.stream.cancel_reason.as_deref().unwrap_or("no reason is known");
        match self.stream.ended_ago_ns {
            Some(_) => format!(
                "It was cancelled {ago} ago ({why}) before it had answered, and {} of it {} on",
                words::count(self.stream.live_tasks.into(), "task"),
                if self.stream.live_tasks == 1 { "goes" } else { "go" }
            ),
            None => format!(
                "It was cancelled {ago} ago ({why}), and its handler has not been dropped{}",
                self.doing()
            ),
        }
    }

    fn left_behind(&self, held: bool, since: &str) -> String {
        let tasks = words::count(self.stream.live_tasks.into(), "task");
        match (self.stream.live_tasks, held) {
            (0, _) => format!("It ended {since} ago, and its request's messages are still held"),
            (1, false) => format!("It ended {since} ago, and {tasks} that it caused lives on"),
            (_, false) => format!("It ended {since} ago, and {tasks} that it caused live on"),
            (_, true) => format!(
                "It ended {since} ago, and its request's messages are still held, by one of \
                 {tasks} that it caused"
            ),
        }
    }

    fn reset(&self, reset: &WireReset) -> String {
        let who =
            if reset.by_peer { format!("The {}", self.peer()) } else { "Our side".to_owned() };
        format!("{who} reset it ({})", code_name(reset.code))
    }

    /// Who has spoken last, where both have.
    fn spoke(&self) -> String {
        let last = |traffic: &Traffic| traffic.last_ago_ns;
        match (last(&self.stream.received), last(&self.stream.sent)) {
            (Some(received), Some(sent)) if received < sent => {
                format!("; the {} spoke last, {} ago", self.peer(), human(received))
            }
            (Some(_), Some(sent)) => format!("; we spoke last, {} ago", human(sent)),
            (Some(received), None) => {
                format!("; the {} spoke last, {} ago", self.peer(), human(received))
            }
            (None, Some(sent)) => format!("; we spoke last, {} ago", human(sent)),
            (None, None) => String::new(),
        }
    }

    /// What its task does, if that is known.
    fn doing(&self) -> String {
        let doing = self.stream.task.and_then(|task| waits::doing(self.judge.snapshot, task));
        doing.map_or_else(String::new, |doing| format!("; {doing}"))
    }

    fn ping(&self, link: &Link<'_>, blocked: bool, since: &str) -> String {
        let peer = self.peer();
        let acked = link.connection.tcp.as_ref().is_some_and(|tcp| tcp.unacked == 0);
        let mut text = format!("The {peer} has not answered a PING for {since}");
        if acked {
            text += ", though every byte of ours is acknowledged: its process stands still, or \
                     every thread of its runtime is blocked, or a proxy on the way does";
        } else if blocked {
            text += ", and does not take what we send";
        }
        text
    }

    fn window(&self, closed_ns: u64) -> String {
        let Some(wire) = &self.stream.wire else { return String::new() };
        let unsent = self.stream.sent.bytes.saturating_sub(wire.data_sent);
        let mut text = format!(
            "The stream's window has been used up for {}: the {} does not read it",
            human(closed_ns),
            self.peer()
        );
        text += &match wire.window_update_ago_ns {
            Some(ago) => format!("; it last did {} ago", human(ago)),
            None => {
                format!("; it has enlarged no window since {} were sent", bytes(wire.data_sent))
            }
        };
        if unsent > 0 {
            text += &format!(", and {} wait here", bytes(unsent));
        }
        let link = self.stream.connection.and_then(|id| self.judge.links.get(&id));
        if let Some(ago) = link.and_then(Link::alive_ago_ns).filter(|&ago| ago < closed_ns) {
            text += &format!("; its transport answered {} ago", human(ago));
        }
        text
    }

    fn hogged(&self, hog: Option<Hog>, what: &str) -> String {
        let Some((id, most)) = hog else { return String::new() };
        let streams = &self.judge.snapshot.streams;
        let method = streams.iter().find(|stream| stream.id == id);
        let method = method.map_or("", |stream| words::method(&stream.method));
        format!(": {} of stream {id} ({method}) {what}", bytes(most))
    }

    fn knot(&self, wait: &crate::model::Wait, why: Why) -> String {
        let holder = wait.holders.first();
        match (why, holder) {
            (Why::OwnSender, _) => ", of which it holds the only sender itself".to_owned(),
            (Why::HolderBlocked, Some(holder)) => {
                let blocked = waits::blocked(self.judge.snapshot, holder.task);
                let poll =
                    blocked.map_or_else(String::new, |blocked| format!(" {}", poll(blocked)));
                format!("; task {} holds it and{poll}", holder.task)
            }
            (_, Some(holder)) => {
                let guard = waits::guard(holder.local.as_deref(), None, holder.location.as_ref());
                let does = waits::find(self.judge.snapshot, holder.task)
                    .and_then(|task| Some(waits::sentence(task, task.wait.as_ref()?)))
                    .map_or_else(String::new, |does| format!(", and {does}"));
                format!("; task {} holds it{guard}{does}", holder.task)
            }
            (Why::Stuck, None) => "; nothing that was seen can end that".to_owned(),
            (_, None) => String::new(),
        }
    }
}

/// `has been in one poll for 3.2s: charge_card (src/billing.rs:88)`
fn poll(blocked: &Blocked) -> String {
    let place = blocked.stack.as_deref().and_then(words::place).or_else(|| {
        let spawned = blocked.spawned_at.as_ref();
        spawned.map(|place| format!("a task spawned at {place}"))
    });
    let place = place.map_or_else(String::new, |place| format!(": {place}"));
    format!("has been in one poll for {}{place}", human(blocked.blocked_ns))
}

fn lossy(link: &Link<'_>) -> String {
    let Some(tcp) = &link.connection.tcp else { return String::new() };
    format!(
        "No ACK has come for {}: {} not acknowledged, {} not sent, {} in a row",
        human(tcp.last_ack_ago_ns),
        words::count(tcp.unacked.into(), "segment"),
        bytes(tcp.notsent_bytes.into()),
        words::count(tcp.retransmits.max(tcp.backoff).max(tcp.probes).into(), "retransmission")
    )
}

/// `: 84 KB are queued, its window is 0 B`
fn queued(link: &Link<'_>) -> String {
    let Some(tcp) = &link.connection.tcp else { return String::new() };
    let window = match tcp.send_window {
        Some(window) => format!(", its window is {}", bytes(window.into())),
        None => String::new(),
    };
    format!(": {} are queued{window}", bytes(tcp.notsent_bytes.into()))
}

/// `512 B`, `64 KiB`, `1.0 MiB`
pub fn bytes(n: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match n {
        0..KIB => format!("{n} B"),
        KIB..MIB => format!("{} KiB", n / KIB),
        _ => format!("{}.{} MiB", n / MIB, n % MIB * 10 / MIB),
    }
}

/// RFC 9113, section 7.
fn code_name(code: u32) -> &'static str {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES.get(code as usize).copied().unwrap_or("an unknown code")
}
