//! Full channels, and channels without a bound that fill, whose receiving task
//! waits for something else.

use std::collections::BTreeMap;

use super::graph::{Graph, Hold, Node, Side};
use super::{LISTED, waits, words};
use crate::model::{
    Confidence, Edge, Finding, FindingKind, Severity, Snapshot, Task, TaskState, Wait, WaitKind,
};

/// Slow receivers are what bounded channels are for; so long is not slow.
const LONG_NS: u64 = 10_000_000_000;

/// So many messages are no accident of the moment.
const MANY: u32 = 1_000;

struct Stuck<'a> {
    receiver: &'a Task,
    hold: Hold<'a>,
    /// What the receiving task waits for instead; none if nothing can wake it.
    instead: Option<&'a Wait>,
    /// For how long it has not received, at least.
    since_ns: u64,
    /// Tasks that wait to send, longest first; none if the channel has no bound.
    senders: Vec<(&'a Task, &'a Wait)>,
}

/// One finding for all channels whose receivers wait at one place.
pub fn found(snapshot: &Snapshot, graph: &Graph<'_>, findings: &mut Vec<Finding>) {
    let mut alike: BTreeMap<(bool, String), Vec<Stuck<'_>>> = BTreeMap::new();
    for stuck in graph.nodes.iter().filter_map(|node| stuck(graph, node)) {
        let place = waits::at(stuck.receiver).map(ToString::to_string).unwrap_or_default();
        alike.entry((stuck.senders.is_empty(), place)).or_default().push(stuck);
    }
    for ((unbounded, place), mut channels) in alike {
        findings.push(if unbounded {
            channels.sort_by_key(|channel| std::cmp::Reverse(channel.hold.backlog));
            piled_up(snapshot, place, &channels)
        } else {
            channels.sort_by_key(|channel| std::cmp::Reverse(channel.senders[0].1.wait_ns));
            finding(snapshot, place, &channels)
        });
    }
}

/// Whether a channel with a receiver that does not receive concerns anybody.
fn stuck<'a>(graph: &Graph<'a>, node: &Node<'a>) -> Option<Stuck<'a>> {
    if node.side != Side::Receiver {
        return None;
    }
    // There is one; where two are seen, one has been moved away.
    let [hold] = node.holds[..] else { return None };
    // In or behind a knot: told there.
    if node.waiters.iter().any(|&tip| graph.stuck[tip]) {
        return None;
    }
    let receiver = &graph.tasks[hold.task];
    let (instead, since_ns) = if graph.is_dead(hold.task) {
        (None, receiver.state_ns)
    } else {
        let instead = elsewhere(graph, node, &hold)?;
        (Some(instead), instead.wait_ns)
    };
    let mut senders: Vec<_> = node
        .waiters
        .iter()
        .filter_map(|&tip| Some((&graph.tasks[graph.tips[tip].task], graph.tips[tip].wait?)))
        .filter(|(_, wait)| wait.wait_ns >= LONG_NS)
        .collect();
    senders.sort_by_key(|(task, wait)| (std::cmp::Reverse(wait.wait_ns), task.id));
    let concerns = !senders.is_empty() || (hold.backlog >= MANY && !hold.doubtful);
    concerns.then_some(Stuck { receiver, hold, instead, since_ns, senders })
}

/// What keeps a task from receiving: of the waits that must all go on before
/// it can, the shortest, if each of them has lasted long enough.
fn elsewhere<'a>(graph: &Graph<'a>, node: &Node<'_>, hold: &Hold<'_>) -> Option<&'a Wait> {
    let receives = |wait: &Wait| wait.kind == WaitKind::MpscRecv && wait.resource == node.resource;
    let awaits = graph.waits_of(hold.task).iter().filter_map(|tip| tip.wait);
    let runs = matches!(graph.tasks[hold.task].state, TaskState::Running | TaskState::Scheduled);
    if runs || awaits.into_iter().any(receives) {
        return None;
    }
    let mut shortest: Option<&Wait> = None;
    for tip in graph.keepers(hold) {
        let wait = graph.tips[tip].wait?;
        // A timer will wake it; of a wait that is not known nothing can be said;
        // and one that sends in its turn is told at the channel that it sends to.
        let will_go_on = wait.deadline_in_ns.is_some()
            || matches!(
                wait.kind,
                WaitKind::Sleep | WaitKind::Yield | WaitKind::Unknown | WaitKind::MpscSend
            );
        if will_go_on || wait.wait_ns < LONG_NS {
            return None;
        }
        shortest = Some(match shortest {
            Some(other) if other.wait_ns <= wait.wait_ns => other,
            _ => wait,
        });
    }
    shortest
}

/// Of channels without a bound: what is sent stays, and takes memory.
fn piled_up(snapshot: &Snapshot, place: String, channels: &[Stuck<'_>]) -> Finding {
    let worst = &channels[0];
    let messages: u64 = channels.iter().map(|channel| u64::from(channel.hold.backlog)).sum();
    let of = if channels.len() == 1 { "in a channel" } else { "in such channels" };
    let mut evidence = vec![format!(
        "{} lie in one channel; task {} has its receiver{} and does not receive.",
        words::count(worst.hold.backlog.into(), "message"),
        worst.receiver.id,
        waits::guard(worst.hold.local, worst.hold.function, worst.hold.location)
    )];
    evidence.extend(doing(snapshot, worst));
    evidence.push(
        "The channel has no bound: whatever else is sent stays in memory. A bounded one would \
         hold its senders back."
            .to_owned(),
    );
    Finding {
        id: format!("stuck_channel:{place}:unbounded"),
        kind: FindingKind::StuckChannel,
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        title: format!(
            "{} lie {of} without a bound: its receiver, task {}, {}",
            words::count(messages, "message"),
            worst.receiver.id,
            instead(worst)
        ),
        evidence,
        place: (!place.is_empty()).then_some(place),
        method: worst.receiver.method.as_deref().map(str::to_owned),
        since_ns: worst.since_ns,
        count: channels.len() as u64,
        tasks: channels.iter().map(|channel| channel.receiver.id).take(LISTED).collect(),
        streams: channels.iter().filter_map(|it| it.receiver.stream).take(LISTED).collect(),
        connections: Vec::new(),
        worker: None,
        edges: Vec::new(),
    }
}

/// `waits for a mutex lock for 41s`
fn instead(stuck: &Stuck<'_>) -> String {
    match stuck.instead {
        Some(wait) => {
            format!("waits for {}{}", words::article(wait.kind.words()), waits::seen(wait))
        }
        None => "can be woken by nothing".to_owned(),
    }
}

/// What the receiving task does instead, and who has what it waits for.
fn doing(snapshot: &Snapshot, stuck: &Stuck<'_>) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    told.extend(waits::doing(snapshot, stuck.receiver.id).map(|doing| words::sentence(&doing)));
    if let Some(holder) = stuck.instead.and_then(|wait| wait.holders.first()) {
        told.extend(
            waits::doing(snapshot, holder.task).map(|doing| format!("Its holder: {doing}.")),
        );
    }
    let by_looks = stuck.instead.into_iter().chain(stuck.senders.first().map(|(_, wait)| *wait));
    if by_looks.into_iter().any(|wait| wait.lower_bound) {
        told.push(waits::SEEN.to_owned());
    }
    told
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
    evidence.extend(doing(snapshot, worst));
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
            "{} cannot send: the channel is full and its receiver, task {}, {}",
            words::count(count, "task"),
            worst.receiver.id,
            instead(worst)
        ),
        evidence,
        place: (!place.is_empty()).then_some(place),
        method: worst.receiver.method.as_deref().map(str::to_owned),
        since_ns: worst.since_ns,
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
