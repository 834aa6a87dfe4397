//! Futures that wait for something themselves: the ends of await chains.

use super::fields::{Route, Types};
use super::interest;
use super::tokio::{self, Senders, WakerPlace};
use crate::debuginfo::layout::{Shape, TypeId, Variants};

/// How to read a future that waits for something itself.
#[derive(Debug)]
pub enum Leaf {
    /// A place in a semaphore's queue.
    Acquire {
        semaphore: Route,
        /// The node in the queue.
        node: u64,
        /// Permits that it still lacks.
        lacks: u64,
        wanted: u64,
        queued: u64,
    },
    /// A receiver: waits if its channel has its waker.
    MpscRecv {
        channel: Route,
        waker: Option<Route>,
        /// To what the ends share, and where that counts.
        senders: Option<(Route, Senders)>,
        sent: Option<Route>,
    },
    /// `None` inside: it has its value.
    Oneshot {
        inner: Route,
    },
    Notified {
        notify: Route,
        state: u64,
        states: Variants,
        /// In the `Notify`: counts the calls that wake all.
        calls: Option<u64>,
    },
    Broadcast {
        shared: Route,
        senders: Option<Senders>,
        /// Counts the messages.
        position: Option<u64>,
    },
    /// To the header of the task.
    Join {
        header: Route,
    },
    /// How many tasks are left in the set.
    JoinSet {
        length: u64,
    },
    Sleep {
        deadline: u64,
    },
    Socket(Socket),
    /// A wait for a socket whose descriptor another frame knows.
    Readiness {
        io: Route,
        /// In there: readiness, with a tick of the driver's.
        tick: Option<u64>,
        interest: Option<u64>,
    },
    GrpcMessage {
        /// Of requests, or of responses.
        direction: Option<(u64, Variants)>,
    },
}

/// A socket that tokio watches.
#[derive(Debug)]
pub struct Socket {
    /// Of the descriptor.
    pub fd: Option<u64>,
    /// To what the driver keeps of it.
    pub io: Route,
    /// In there: readiness, with a tick of the driver's.
    pub tick: Option<u64>,
    pub reader: Option<WakerPlace>,
    pub writer: Option<WakerPlace>,
}

const ACQUIRE: &str = "tokio::sync::batch_semaphore::Acquire";
const RX: &str = "tokio::sync::mpsc::chan::Rx<";
const RECEIVER: &str = "tokio::sync::oneshot::Receiver<";
const NOTIFIED: [&str; 2] = ["tokio::sync::notify::Notified", "tokio::sync::notify::OwnedNotified"];
const RECV: &str = "tokio::sync::broadcast::Recv<";
const JOIN_HANDLE: &str = "tokio::runtime::task::join::JoinHandle<";
const JOIN_SET: &str = "tokio::task::join_set::JoinSet<";
const SLEEP: &str = "tokio::time::sleep::Sleep";
const READINESS: &str = "tokio::runtime::io::scheduled_io::Readiness";
const STREAMING: &str = "tonic::codec::decode::Streaming<";

/// What a type by this name may contain, if it is one of these.
pub fn interest(name: &str) -> Option<u8> {
    if name == ACQUIRE || NOTIFIED.contains(&name) {
        return Some(interest::POLL | interest::KEEP);
    }
    let known = name == SLEEP
        || name == READINESS
        || [RX, RECEIVER, RECV, JOIN_HANDLE, JOIN_SET, tokio::POLL_EVENTED, STREAMING]
            .iter()
            .any(|start| name.starts_with(start));
    known.then_some(interest::POLL)
}

/// How to read a type, if it is one of these.
pub fn find(types: &mut Types<'_>, id: TypeId, name: &str) -> Option<Leaf> {
    if name == ACQUIRE {
        let (node, node_type) = types.path(id, &["node"])?;
        return Some(Leaf::Acquire {
            semaphore: types.route(id, &[tokio::SEMAPHORE], 1)?,
            node,
            lacks: node + types.path(node_type, &["state"])?.0,
            wanted: types.path(id, &["num_permits"])?.0,
            queued: types.path(id, &["queued"])?.0,
        });
    }
    if name.starts_with(RX) {
        return receiver(types, id);
    }
    if name.starts_with(RECEIVER) {
        return Some(Leaf::Oneshot { inner: types.route(id, &[tokio::ONESHOT], 1)? });
    }
    if NOTIFIED.contains(&name) {
        let state = types.member(id, "state")?;
        let Shape::Enum(states) = &types.get(state.ty)?.shape else { return None };
        // Not `Notified` itself, whose name begins alike.
        let notify = types.route(id, &["tokio::sync::notify::Notify"], 2);
        let notify = notify.filter(|route| route.ty != id)?;
        let calls = types.path(notify.ty, &["state"]).map(|(offset, _)| offset);
        return Some(Leaf::Notified { notify, calls, state: state.offset, states: states.clone() });
    }
    if name.starts_with(RECV) {
        let shared = types.route(id, &[tokio::BROADCAST], 2)?;
        let senders = Senders::find(types, shared.ty, "num_tx", Some("num_weak_tx"));
        let position = types.path(shared.ty, &["tail", "data", "pos"]).map(|(offset, _)| offset);
        return Some(Leaf::Broadcast { shared, senders, position });
    }
    if name.starts_with(JOIN_HANDLE) {
        return Some(Leaf::Join {
            header: types.route(id, &["tokio::runtime::task::core::Header"], 1)?,
        });
    }
    if name.starts_with(JOIN_SET) {
        let length = types.path(id, &["inner", "length"])?.0;
        return Some(Leaf::JoinSet { length });
    }
    if name == SLEEP {
        return Some(Leaf::Sleep { deadline: deadline(types, id)? });
    }
    if name.starts_with(tokio::POLL_EVENTED) {
        return Some(Leaf::Socket(Socket::find(types, id)?));
    }
    if name == READINESS {
        let interest = types.path(id, &["waiter"]).and_then(|(waiter, ty)| {
            let (interest, ty) = types.path(ty, &["interest"])?;
            let (number, _) = types.unwrapped(ty)?;
            Some(waiter + interest + number)
        });
        let io = types.route(id, &[tokio::SCHEDULED_IO], 1)?;
        let tick = types.path(io.ty, &["readiness"]).map(|(offset, _)| offset);
        return Some(Leaf::Readiness { io, tick, interest });
    }
    name.starts_with(STREAMING).then(|| Leaf::GrpcMessage { direction: direction(types, id) })
}

fn direction(types: &mut Types<'_>, streaming: TypeId) -> Option<(u64, Variants)> {
    let (at, direction) = types.path(streaming, &["inner", "direction"])?;
    match &types.get(direction)?.shape {
        Shape::Enum(variants) => Some((at, variants.clone())),
        _ => None,
    }
}

/// The leaf of an mpsc receiver, which is something held as well.
pub fn within_receiver(types: &mut Types<'_>, id: TypeId, name: &str) -> Option<Leaf> {
    let receiver_type = name.starts_with("tokio::sync::mpsc::") && name.contains("Receiver<");
    receiver_type.then(|| receiver(types, id)).flatten()
}

fn receiver(types: &mut Types<'_>, id: TypeId) -> Option<Leaf> {
    let channel = tokio::channel(types, id)?;
    let chan = types.route(id, &[tokio::CHAN], 1)?;
    let senders = Senders::find(types, chan.ty, "tx_count", Some("tx_weak_count"));
    let senders = senders.map(|senders| (chan.clone(), senders));
    let waker = tokio::waker(types, chan.ty, &["rx_waker"]).map(|place| {
        let ty = chan.ty;
        chan.then(place.vtable, ty)
    });
    let sent = tokio::sent(types, id);
    Some(Leaf::MpscRecv { channel, waker, senders, sent })
}

/// Where a `Sleep` keeps its deadline, as seconds and nanoseconds.
pub fn deadline(types: &mut Types<'_>, sleep: TypeId) -> Option<u64> {
    let (sleep_at, sleep) = types.within(sleep, SLEEP)?;
    let (offset, instant) = types.path(sleep, &["deadline"])?;
    let (seconds, _) = types.path(instant, &["tv_sec"])?;
    let (nanos, _) = types.path(instant, &["tv_nsec"])?;
    // Read together: the kernel's order, seconds first.
    (nanos == seconds + 8).then_some(sleep_at + offset + seconds)
}

impl Socket {
    /// From a `PollEvented`.
    pub fn find(types: &mut Types<'_>, evented: TypeId) -> Option<Self> {
        let io = types.route(evented, &[tokio::SCHEDULED_IO], 1)?;
        let fd = types.within(evented, "std::os::fd::owned::OwnedFd").map(|(offset, _)| offset);
        let waiters = types.within(io.ty, "tokio::runtime::io::scheduled_io::Waiters");
        let mut waker = |name: &str| {
            let (waiters, ty) = waiters?;
            let place = tokio::waker(types, ty, &[name])?;
            Some(WakerPlace { vtable: waiters + place.vtable })
        };
        let (reader, writer) = (waker("reader"), waker("writer"));
        let tick = types.path(io.ty, &["readiness"]).map(|(offset, _)| offset);
        Some(Self { fd, io, tick, reader, writer })
    }
}
