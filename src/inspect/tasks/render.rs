//! From what was found to what the model says: strings are made once.

use std::collections::HashMap;
use std::sync::Arc;

use super::frames::Frames;
use super::sockets::Sockets;
use super::trace::{NO_LEVEL, RawDetail, RawHeld, RawWait, Tip, Trace, clipped};
use super::{Roots, TaskRead};
use crate::model::{About, Branch, Held, Mark, Resource, TaskId, Wait, WaitKind};

/// Words of waits made so far.
pub struct Render {
    details: HashMap<RawDetail, Option<Arc<str>>>,
    sockets: Option<Sockets>,
    monotonic_ns: Option<u64>,
}

impl Render {
    pub fn new(roots: &Roots) -> Self {
        Self {
            details: HashMap::new(),
            sockets: roots.process.map(Sockets::of),
            monotonic_ns: roots.monotonic_ns,
        }
    }

    /// Fills a task with what its trace found. `joins` tells the id of a task
    /// by its header.
    pub fn task(
        &mut self,
        frames: &mut Frames,
        trace: &Trace,
        task: &mut TaskRead,
        or_one_of: &[Arc<str>],
        joins: impl Fn(u64) -> Option<u64>,
    ) {
        let Some(main) = main(&trace.tips) else { return };
        let chain = trace.frames(main.level, NO_LEVEL);
        task.stack = Some(frames.stack(&chain, trace.cut, or_one_of));
        let mut wait = |wait: Option<RawWait>| wait.map(|wait| self.wait(wait, &joins));
        task.wait = wait(main.wait);
        if trace.tips.len() > 1 {
            let on_main = levels(trace, main.level);
            let others = trace.tips.iter().filter(|tip| !std::ptr::eq(*tip, main));
            task.branches = others
                .map(|tip| {
                    let fork = fork(trace, tip.level, &on_main);
                    let stack = frames.stack(&trace.frames(tip.level, fork), false, &[]);
                    Branch { stack, wait: wait(tip.wait), dormant: tip.dormant }
                })
                .collect();
        }
        if !trace.holds.is_empty() {
            task.holds = self.holds(frames, trace, main);
        }
    }

    fn wait(&mut self, raw: RawWait, joins: &impl Fn(u64) -> Option<u64>) -> Wait {
        let socket = match (&mut self.sockets, raw.fd) {
            (Some(sockets), Some(fd)) => sockets.describe(fd),
            _ => None,
        };
        let deadline_in_ns = match (raw.deadline, self.monotonic_ns) {
            (Some(deadline), Some(now)) => i64::try_from(deadline - i128::from(now)).ok(),
            _ => None,
        };
        Wait {
            deadline_in_ns,
            queue: raw.queue.map(clipped),
            senders: raw.senders.map(clipped),
            mark: match raw.ahead {
                Some(ahead) if raw.mark == 0 => Mark::of_place(ahead),
                _ => Mark::of_counter(raw.mark),
            },
            ..Wait::new(raw.kind, raw.resource.and_then(Resource::at))
        }
        .with(About {
            detail: socket.or_else(|| self.detail(raw.detail)),
            task: raw.joins.and_then(joins).map(TaskId),
            fd: raw.fd,
            ..About::default()
        })
    }

    fn detail(&mut self, raw: RawDetail) -> Option<Arc<str>> {
        self.details
            .entry(raw)
            .or_insert_with(|| {
                let words = match raw {
                    RawDetail::None => return None,
                    RawDetail::Permits(wanted, free) => format!("wants {wanted}, {free} free"),
                    RawDetail::Granted => "granted, not taken yet".to_owned(),
                    RawDetail::Tasks(1) => "1 task left in the set".to_owned(),
                    RawDetail::Tasks(count) => format!("{count} tasks left in the set"),
                    RawDetail::Closed => "until the other end is gone".to_owned(),
                    RawDetail::Request => Wait::OF_REQUEST.to_owned(),
                    RawDetail::Response => Wait::OF_RESPONSE.to_owned(),
                    RawDetail::Either => "or until it can be written".to_owned(),
                };
                Some(words.into())
            })
            .clone()
    }

    fn holds(&self, frames: &Frames, trace: &Trace, main: &Tip) -> Box<[Held]> {
        let polled = polled(trace, main);
        innermost(&trace.holds)
            .into_iter()
            .filter_map(|held| {
                let level = trace.levels.get(held.level as usize);
                let frame = level.and_then(|level| frames.get(level.frame));
                Some(Held {
                    kind: held.kind,
                    resource: Resource::at(held.resource)?,
                    local: held.local.clone(),
                    function: frame.map(|frame| frame.function.clone()),
                    location: frame.and_then(|frame| frame.location.clone()),
                    dormant: held.dormant,
                    perhaps_dropped: held.doubtful,
                    within: within(trace, &polled, held.level),
                    backlog: held.backlog,
                })
            })
            .collect()
    }
}

/// What a task holds, each thing once, in the order found.
///
/// A value that was moved inward left its bytes behind: the innermost is the
/// one that counts, a named one before others. Of equals the later: the earlier
/// was dropped for it.
fn innermost(holds: &[RawHeld]) -> Vec<&RawHeld> {
    let mut order: Vec<usize> = (0..holds.len()).collect();
    let thing = |at: usize| (holds[at].kind, holds[at].resource);
    order.sort_by_key(|&at| thing(at));
    let better = |at: usize| {
        let held = &holds[at];
        (held.local.is_some(), !held.doubtful, held.level, at)
    };
    let mut kept: Vec<(usize, &RawHeld)> = order
        .chunk_by(|&one, &other| thing(one) == thing(other))
        .filter_map(|same| {
            Some((*same.first()?, &holds[*same.iter().max_by_key(|&&at| better(at))?]))
        })
        .collect();
    kept.sort_unstable_by_key(|(first, _)| *first);
    kept.into_iter().map(|(_, held)| held).collect()
}

/// The chain that is shown as the task's own: the first that it polls, and of
/// those the first that says what it waits for. A timer beside something else
/// is a timeout or a keep-alive: the other thing is what matters.
fn main(tips: &[Tip]) -> Option<&Tip> {
    let waits = |tip: &Tip, timer: bool| {
        let known = |kind| kind != WaitKind::Unknown && (kind == WaitKind::Sleep) == timer;
        !tip.dormant && tip.wait.is_some_and(|wait| known(wait.kind))
    };
    // What was granted and is not taken leads to whatever holds it up.
    let is_held_up =
        |tip: &Tip| !tip.dormant && tip.wait.is_some_and(|wait| wait.detail == RawDetail::Granted);
    tips.iter()
        .find(|tip| waits(tip, false))
        .or_else(|| tips.iter().find(|tip| is_held_up(tip)))
        .or_else(|| tips.iter().find(|tip| waits(tip, true)))
        .or_else(|| tips.iter().find(|tip| !tip.dormant))
        .or_else(|| tips.first())
}

/// The chains that a task polls, by their numbers in the model, if there are
/// several.
fn polled(trace: &Trace, main: &Tip) -> Vec<(u32, Vec<u32>)> {
    let others = trace.tips.iter().filter(|tip| !std::ptr::eq(*tip, main));
    let numbered = std::iter::once((0, main)).chain((1..).zip(others));
    let polled = numbered.filter(|(_, tip)| !tip.dormant);
    polled.map(|(number, tip)| (number, levels(trace, tip.level))).collect()
}

/// The only one of the polled chains that leads through what holds something.
fn within(trace: &Trace, polled: &[(u32, Vec<u32>)], level: u32) -> Option<u32> {
    if polled.len() < 2 {
        return None;
    }
    let mut at = level;
    while let Some(here) = trace.levels.get(at as usize) {
        let mut through = polled.iter().filter(|(_, levels)| levels.binary_search(&at).is_ok());
        if let Some(&(number, _)) = through.next() {
            return through.next().is_none().then_some(number);
        }
        at = here.parent;
    }
    None
}

/// Levels of a chain, ascending.
fn levels(trace: &Trace, level: u32) -> Vec<u32> {
    let mut levels = Vec::new();
    let mut at = level;
    while let Some(level) = trace.levels.get(at as usize) {
        levels.push(at);
        at = level.parent;
    }
    levels.reverse();
    levels
}

/// The innermost level that a chain shares with the main one.
fn fork(trace: &Trace, level: u32, on_main: &[u32]) -> u32 {
    let mut at = level;
    while let Some(level) = trace.levels.get(at as usize) {
        if on_main.binary_search(&at).is_ok() {
            break;
        }
        at = level.parent;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HeldKind;

    fn sender(resource: u64, level: u32, local: Option<&str>) -> RawHeld {
        RawHeld {
            kind: HeldKind::MpscSender,
            resource,
            local: local.map(Into::into),
            level,
            dormant: false,
            doubtful: false,
            most: None,
            backlog: None,
        }
    }

    #[test]
    fn of_one_thing_held_twice_the_innermost_counts() {
        let holds = [
            sender(0x20, 1, Some("outer")),
            sender(0x10, 1, Some("other")),
            sender(0x20, 3, Some("inner")),
            sender(0x20, 5, None),
        ];
        let kept: Vec<_> = innermost(&holds).iter().map(|held| held.local.as_deref()).collect();
        assert_eq!(kept, [Some("inner"), Some("other")]);
    }

    /// As of a hub that keeps a sender to each of its clients.
    #[test]
    fn a_task_may_hold_very_many_things() {
        let holds: Vec<RawHeld> =
            (0..2_000_000).map(|n| sender(1_000_000 - n / 2, 1, None)).collect();
        let kept = innermost(&holds);
        assert_eq!(kept.len(), 1_000_000);
        assert_eq!((kept[0].resource, kept[999_999].resource), (1_000_000, 1));
    }
}
