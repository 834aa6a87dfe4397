//! Who holds what others wait for, checked against what the resource says.
//!
//! A live local is proof of little: a guard that was dropped before the end of
//! its scope leaves its bytes behind, and the compiler keeps the room. Two
//! things tell: flags that the compiler keeps for locals that may have been
//! moved away, and the resource itself, which knows how much of it is out.

use std::collections::HashSet;

use super::TaskRead;
use super::semaphores::Semaphores;
use super::tokio::RWLOCK_PERMITS;
use super::trace::{RawHeld, Tip};
use crate::inspect::image::Cached;
use crate::model::{Held, HeldKind, Holder, Resource, TaskId, Wait, WaitKind};
use crate::sys::thread;

/// Holders named at each wait. A semaphore can have thousands, and as many
/// that wait for it.
const HOLDERS: usize = 32;

/// What tasks seem to hold.
#[derive(Default)]
pub struct Claims {
    /// With the resource; of one resource and task in the order found.
    all: Vec<(u64, Claim)>,
    /// Not to be believed, whatever else is seen.
    struck: Vec<(u64, TaskId, HeldKind)>,
}

#[derive(Clone, Copy)]
struct Claim {
    task: TaskId,
    kind: HeldKind,
    doubtful: bool,
    /// How many readers the lock lets in.
    most: u32,
}

impl Claims {
    /// Notes what a task seems to hold, given where it waits.
    pub fn note(&mut self, task: TaskId, holds: &[RawHeld], tips: &[Tip]) {
        for held in holds {
            // A guard that may have been dropped, and the same lock wanted
            // again: it has been.
            let wanted =
                |tip: &Tip| tip.wait.is_some_and(|wait| wait.resource == Some(held.resource));
            if held.doubtful && is_semaphore(held.kind) && tips.iter().any(wanted) {
                self.struck.push((held.resource, task, held.kind));
                continue;
            }
            let (kind, doubtful) = (held.kind, held.doubtful);
            let most = held.most.unwrap_or(RWLOCK_PERMITS);
            self.all.push((held.resource, Claim { task, kind, doubtful, most }));
        }
    }

    /// Strikes out what cannot be, then tells every wait who holds what it
    /// waits for.
    pub fn settle(
        mut self,
        memory: &mut Cached<'_>,
        semaphores: &mut Semaphores,
        tasks: &mut [TaskRead],
    ) {
        // In the order of addresses: neighbours in memory come from one read.
        let key = |(resource, claim): &(u64, Claim)| (*resource, claim.task, claim.kind);
        self.all.sort_unstable_by_key(key);
        self.all.dedup_by(|later, first| {
            let same = key(later) == key(first);
            first.1.doubtful &= !same || later.1.doubtful;
            same
        });
        let mut struck: HashSet<(Option<Resource>, TaskId, HeldKind)> = HashSet::new();
        for (resource, task, kind) in self.struck {
            if self.all.binary_search_by_key(&(resource, task, kind), key).is_err() {
                struck.insert((Resource::at(resource), task, kind));
            }
        }
        for claims in self.all.chunk_by(|one, other| one.0 == other.0) {
            thread::give_way();
            let resource = claims[0].0;
            // Nearly all: the end of a channel that one task has.
            if let [(_, Claim { kind, doubtful: false, .. })] = claims
                && !is_semaphore(*kind)
            {
                continue;
            }
            let claims: Vec<Claim> = claims.iter().map(|(_, claim)| *claim).collect();
            let free = if claims.iter().any(|claim| is_semaphore(claim.kind)) {
                semaphores.get(memory, resource).map(|semaphore| semaphore.free)
            } else {
                None
            };
            let out = strike(&claims, free).into_iter();
            struck.extend(out.map(|(task, kind)| (Resource::at(resource), task, kind)));
        }
        if !struck.is_empty() {
            for task in tasks.iter_mut() {
                thread::give_way();
                let id = task.id;
                let keep = |held: &Held| !struck.contains(&(Some(held.resource), id, held.kind));
                if !task.holds.iter().all(keep) {
                    task.holds = task.holds.iter().filter(|held| keep(held)).cloned().collect();
                }
            }
        }
        join(tasks);
    }
}

fn is_semaphore(kind: HeldKind) -> bool {
    use HeldKind::{Mutex, Permit, RwLockRead, RwLockWrite};
    matches!(kind, Mutex | RwLockRead | RwLockWrite | Permit)
}

/// The claims that are not to be believed, given how many permits are free.
fn strike(claims: &[Claim], free: Option<u64>) -> Vec<(TaskId, HeldKind)> {
    let impossible = |claim: &Claim| match (claim.kind, free) {
        (HeldKind::Mutex, Some(free)) => free > 0,
        (HeldKind::RwLockRead, Some(free)) => free >= claim.most.into(),
        (HeldKind::RwLockWrite, Some(free)) => free > 0,
        _ => false,
    };
    let (possible, mut out): (Vec<Claim>, Vec<Claim>) =
        claims.iter().partition(|claim| !impossible(claim));
    let exclusive = |kind: HeldKind| matches!(kind, HeldKind::Mutex | HeldKind::RwLockWrite);
    let certain = possible.iter().filter(|claim| !claim.doubtful).count();
    let rivals = possible.iter().filter(|claim| exclusive(claim.kind)).count();
    for claim in possible {
        let wrong = if exclusive(claim.kind) {
            // One can hold it. Who was sure before is sure still; where two
            // are, or two are not, nobody is believed.
            match certain {
                0 => rivals > 1,
                1 => claim.doubtful,
                _ => true,
            }
        } else {
            // Somebody has what is gone; where nobody is sure, it may be these.
            claim.doubtful && (certain > 0 || free != Some(0))
        };
        if wrong {
            out.push(claim);
        }
    }
    out.into_iter().map(|claim| (claim.task, claim.kind)).collect()
}

/// Tells every wait who holds what it waits for.
fn join(tasks: &mut [TaskRead]) {
    let mut waited: Vec<WaitKind> = Vec::new();
    for wait in tasks.iter().flat_map(waits) {
        if !waited.contains(&wait.kind) {
            waited.push(wait.kind);
        }
    }
    // Most tasks hold nothing but their own end of a channel: what nobody can
    // be waiting for is not looked at again.
    let of_use = |held: &Held| waited.iter().any(|&kind| releases(held.kind, kind));
    let mut all = Vec::new();
    for (task, read) in (0_u32..).zip(tasks.iter()) {
        thread::give_way();
        let held = (0_u32..).zip(&read.holds).filter(|(_, held)| of_use(held));
        all.extend(held.map(|(number, held)| (held.resource, task, number)));
    }
    if all.is_empty() {
        return;
    }
    all.sort_unstable();
    let mut told: Vec<(u32, u32, Vec<Holder>)> = Vec::new();
    for (task, read) in (0_u32..).zip(tasks.iter()) {
        thread::give_way();
        for (number, wait) in (0_u32..).zip(waits(read)) {
            let holders = holders(tasks, &all, wait);
            if !holders.is_empty() {
                told.push((task, number, holders));
            }
        }
    }
    for (task, number, holders) in told {
        if let Some(wait) = waits_mut(&mut tasks[task as usize]).nth(number as usize) {
            wait.about_mut().holders = holders;
        }
    }
}

/// Those of `all`, which is in order, that hold what a wait is for.
fn holders(tasks: &[TaskRead], all: &[(Resource, u32, u32)], wait: &Wait) -> Vec<Holder> {
    let Some(resource) = wait.resource else { return Vec::new() };
    let from = all.partition_point(|(held, ..)| *held < resource);
    let candidates = all[from..].iter().take_while(|(held, ..)| *held == resource);
    candidates
        .map(|&(_, task, number)| {
            let task = &tasks[task as usize];
            (task.id, &task.holds[number as usize])
        })
        .filter(|(_, held)| releases(held.kind, wait.kind))
        .take(HOLDERS)
        .map(|(task, held)| Holder {
            task,
            local: held.local.clone(),
            location: held.location.clone(),
        })
        .collect()
}

/// All that a task waits for, its main chain first.
fn waits(task: &TaskRead) -> impl Iterator<Item = &Wait> {
    task.wait.iter().chain(task.branches.iter().filter_map(|branch| branch.wait.as_ref()))
}

/// The same, to be changed.
fn waits_mut(task: &mut TaskRead) -> impl Iterator<Item = &mut Wait> {
    let branches = task.branches.iter_mut().filter_map(|branch| branch.wait.as_mut());
    task.wait.iter_mut().chain(branches)
}

/// Whether what is held is what the wait is for.
fn releases(held: HeldKind, wait: WaitKind) -> bool {
    use HeldKind as H;
    use WaitKind as W;
    match wait {
        W::Mutex => held == H::Mutex,
        W::RwLockRead | W::RwLockWrite => matches!(held, H::RwLockRead | H::RwLockWrite),
        W::Semaphore | W::OnceCell => held == H::Permit,
        W::MpscRecv => held == H::MpscSender,
        W::MpscSend => matches!(held, H::MpscReceiver | H::Permit),
        W::Oneshot => held == H::OneshotSender,
        W::Watch | W::Barrier => held == H::WatchSender,
        W::Broadcast => held == H::BroadcastSender,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::tasks::parked::image;
    use crate::model::sample;

    fn claim(task: u64, kind: HeldKind, doubtful: bool) -> Claim {
        Claim { task: TaskId(task), kind, doubtful, most: RWLOCK_PERMITS }
    }

    #[test]
    fn nobody_holds_a_lock_that_is_free() {
        let claims = [claim(1, HeldKind::Mutex, false)];
        assert_eq!(strike(&claims, Some(1)), [(TaskId(1), HeldKind::Mutex)]);
        assert_eq!(strike(&claims, Some(0)), []);
        let claims = [claim(1, HeldKind::RwLockRead, false)];
        assert_eq!(strike(&claims, Some(RWLOCK_PERMITS.into())).len(), 1);
        assert_eq!(strike(&claims, Some(u64::from(RWLOCK_PERMITS) - 1)), []);
    }

    #[test]
    fn of_rivals_the_certain_one_is_believed_or_none() {
        let sure = claim(1, HeldKind::Mutex, false);
        let moved = claim(2, HeldKind::Mutex, true);
        assert_eq!(strike(&[sure, moved], Some(0)), [(TaskId(2), HeldKind::Mutex)]);
        assert_eq!(strike(&[moved], Some(0)), [], "somebody has it, nobody else is seen");
        assert_eq!(strike(&[moved, claim(3, HeldKind::Mutex, true)], Some(0)).len(), 2);
        assert_eq!(strike(&[sure, claim(3, HeldKind::Mutex, false)], Some(0)).len(), 2);
    }

    /// Each has dropped its guard and waits for the lock again.
    #[test]
    fn as_many_as_there_are_may_be_wrong_about_one_lock() {
        let lock = 0x7f10;
        let (mut claims, mut tasks) = (Claims::default(), Vec::new());
        for id in 1..=200_000 {
            claims.all.push((lock, claim(id, HeldKind::Mutex, false)));
            let guard = sample::held(HeldKind::Mutex, "m", "guard", "step", ("app", 1), false);
            let held = Held { resource: Resource::at(lock).unwrap(), ..guard };
            tasks.push(TaskRead { holds: [held].into(), ..TaskRead::unseen(TaskId(id)) });
        }
        let (mut image, mut semaphores) = (image(), Semaphores::new(None, 0));
        let mut memory = Cached::new(image.memory.as_mut(), 0).unwrap();
        claims.settle(&mut memory, &mut semaphores, &mut tasks);
        assert!(tasks.iter().all(|task| task.holds.is_empty()));
    }

    #[test]
    fn readers_do_not_exclude_each_other() {
        let claims = [claim(1, HeldKind::RwLockRead, false), claim(2, HeldKind::RwLockRead, false)];
        assert_eq!(strike(&claims, Some(u64::from(RWLOCK_PERMITS) - 2)), []);
    }
}
