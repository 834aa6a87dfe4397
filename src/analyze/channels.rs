//! Full channels whose receiving task waits for something else.

use std::collections::BTreeMap;

use super::graph::{Graph, Hold, Node, Side};
use super::{LISTED, waits, words};
use crate::model::{
    Confidence, Edge, Finding, FindingKind, Severity, Snapshot, Task, Wait, WaitKind,
};

/// Slow receivers are what bounded channels are for; so long is not slow.
const LONG_NS: u64 = 10_000_000_000;

struct Stuck<'a> {
    receiver: &'a Task,
    hold: Hold<'a>,
    /// What the receiving task waits for instead.
    instead: &'a Wait,
    /// Tasks that wait to send, longest first.
    senders: Vec<(&'a Task, &'a Wait)>,
}

/// One finding for all channels whose receivers wait at one place.
pub fn found(snapshot: &Snapshot, graph: &Graph<'_>, findings: &mut Vec<Finding>) {
    let mut alike: BTreeMap<String, Vec<Stuck<'_>>> = BTreeMap::new();
    for stuck in graph.nodes.iter().filter_map(|node| stuck(graph, node)) {
        let place = waits::at(stuck.receiver).map(ToString::to_string).unwrap_or_default();
        alike.entry(place).or_default().push(stuck);
    }
    for (place, mut channels) in alike {
        channels.sort_by_key(|channel| std::cmp::Reverse(channel.senders[0].1.wait_ns));
        findings.push(finding(snapshot, place, &channels));
    }
}

fn stuck<'a>(graph: &Graph<'a>, node: &Node<'a>) -> Option<Stuck<'a>> {
    if node.side != Side::Receiver {
        return None;
    }
    let hold = *node.holds.first()?;
    // In or behind a knot: told there.
    if node.waiters.iter().any(|&tip| graph.stuck[tip]) {
        return None;
    }
    let receiver = &graph.tasks[hold.task];
    let instead = receiver.wait.as_ref()?;
    let receives = |wait: &Wait| wait.kind == WaitKind::MpscRecv && wait.resource == node.resource;
    let any = receiver
        .branches
        .iter()
        .filter(|branch| !branch.dormant)
        .filter_map(|branch| branch.wait.as_ref())
        .any(receives);
    // A timer will wake it; of a wait that is not known nothing can be said;
    // and one that sends in its turn is told at the channel that it sends to.
    let will_go_on = instead.deadline_in_ns.is_some()
        || matches!(
            instead.kind,
            WaitKind::Sleep | WaitKind::Yield | WaitKind::Unknown | WaitKind::MpscSend
        );
    if any || receives(instead) || will_go_on || instead.wait_ns < LONG_NS {
        return None;
    }
    let mut senders: Vec<_> = node
        .waiters
        .iter()
        .filter_map(|&tip| Some((&graph.tasks[graph.tips[tip].task], graph.tips[tip].wait?)))
        .filter(|(_, wait)| wait.wait_ns >= LONG_NS)
        .collect();
    senders.sort_by_key(|(task, wait)| (std::cmp::Reverse(wait.wait_ns), task.id));
    (!senders.is_empty()).then_some(Stuck { receiver, hold, instead, senders })
}

fn finding(snapshot: &Snapshot, place: String, channels: &[Stuck<'_>]) -> Finding {
    let worst = &channels[0];
    let (first, wait) = worst.senders[0];
    let count = channels.iter().map(|channel| channel.senders.len() as u64).sum();
    let mut evidence = vec![
        words::sentence(&waits::sentence(first, wait)),
        format!(
            "Task {} has that channel's receiver{} and does not receive.",
            worst.receiver.id,
            waits::guard(worst.hold.local, worst.hold.function, worst.hold.location)
        ),
    ];
    evidence.extend(waits::doing(snapshot, worst.receiver.id).map(|doing| words::sentence(&doing)));
    if let Some(holder) = worst.instead.holders.first() {
        evidence.extend(
            waits::doing(snapshot, holder.task).map(|doing| format!("Its holder: {doing}.")),
        );
    }
    let by_looks = wait.lower_bound || worst.instead.lower_bound;
    evidence.extend(by_looks.then(|| waits::SEEN.to_owned()));
    if channels.len() > 1 {
        evidence.push(format!(
            "{} are in the same state; this is the one that has waited longest.",
            words::count(channels.len() as u64, "channel")
        ));
    }
    let senders = || channels.iter().flat_map(|channel| &channel.senders).map(|(task, _)| *task);
    Finding {
        id: format!("stuck_channel:{place}"),
        kind: FindingKind::StuckChannel,
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        title: format!(
            "{} cannot send: the channel is full and its receiver, task {}, waits for {}{}",
            words::count(count, "task"),
            worst.receiver.id,
            words::article(worst.instead.kind.words()),
            waits::seen(worst.instead)
        ),
        evidence,
        place: (!place.is_empty()).then_some(place),
        method: worst.receiver.method.as_deref().map(str::to_owned),
        since_ns: worst.instead.wait_ns,
        count,
        tasks: channels
            .iter()
            .map(|channel| channel.receiver.id)
            .chain(senders().map(|task| task.id))
            .take(LISTED)
            .collect(),
        streams: senders().filter_map(|task| task.stream).take(LISTED).collect(),
        connections: Vec::new(),
        worker: None,
        edges: vec![Edge {
            waits: first.id,
            kind: wait.kind,
            resource: wait.resource,
            at: waits::at(first).cloned(),
            holder: worst.receiver.id,
            local: worst.hold.local.map(Into::into),
            held_at: worst.hold.location.cloned(),
            dormant: worst.hold.dormant,
        }],
    }
}
