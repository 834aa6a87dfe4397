//! Waits and holders: each finding from tasks that show it, and its healthy twin.

use proptest::prelude::*;

use super::{Trend, analyze, leaked};
use crate::model::sample::{self, SECOND, branch, held, waiting};
use crate::model::{
    Confidence, Finding, FindingKind, HeldKind, Mark, Severity, Snapshot, Task, TaskId, TaskState,
    WaitKind,
};

fn with(tasks: impl IntoIterator<Item = Task>) -> Snapshot {
    let mut snapshot = sample::empty();
    snapshot.tasks.extend(tasks);
    snapshot.tasks.sort_by_key(|task| task.id);
    snapshot.coverage.listed = snapshot.tasks.len() as u64;
    snapshot
}

fn found(tasks: impl IntoIterator<Item = Task>) -> Vec<Finding> {
    analyze(&with(tasks)).findings
}

fn one(tasks: impl IntoIterator<Item = Task>, kind: FindingKind) -> Finding {
    let mut found = found(tasks);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].kind, kind);
    found.remove(0)
}

/// A task that waits for a mutex and holds others.
fn locks(id: u64, waits: &str, holds: &[&str]) -> Task {
    let line = id as u32;
    let mut task = waiting(id, "app::step", ("app", line), WaitKind::Mutex, waits);
    task.holds = holds
        .iter()
        .map(|name| held(HeldKind::Mutex, name, "guard", "step", ("app", line), false))
        .collect();
    task
}

fn holding(mut task: Task, kind: HeldKind, name: &str, dormant: bool) -> Task {
    let more = held(kind, name, "it", "step", ("app", 9), dormant);
    task.holds = task.holds.iter().cloned().chain([more]).collect();
    task
}

/// Its lock knows that it is taken; by whom, nothing tells.
#[test]
fn a_circle_through_a_guard_that_may_have_been_dropped_is_suspected() {
    let circle = |since: u64, doubtful| {
        let mut tasks = [locks(1, "b", &["a"]), locks(2, "a", &["b"])];
        for task in &mut tasks {
            task.wait.as_mut().unwrap().wait_ns = since;
        }
        for held in &mut tasks[0].holds {
            held.perhaps_dropped = doubtful;
        }
        found(tasks)
    };
    assert_eq!(circle(SECOND, false)[0].confidence, Confidence::Proven);
    assert!(circle(9 * SECOND, true).is_empty(), "not told at once");
    let told = circle(11 * SECOND, true);
    let deadlock = told.iter().find(|finding| finding.kind == FindingKind::Deadlock).unwrap();
    assert_eq!(
        (deadlock.severity, deadlock.confidence),
        (Severity::Warning, Confidence::Suspected)
    );
    assert!(deadlock.evidence.iter().any(|it| it.contains("may have dropped it")), "{deadlock:#?}");
}

fn waits(id: u64, kind: WaitKind, name: &str) -> Task {
    waiting(id, "app::other", ("other", id as u32), kind, name)
}

#[test]
fn two_tasks_that_hold_what_the_other_wants_are_a_proven_deadlock() {
    let mut late = locks(2, "a", &["b"]);
    late.wait.as_mut().unwrap().wait_ns = 20 * SECOND;
    let finding = one([locks(1, "b", &["a"]), late, locks(3, "a", &[])], FindingKind::Deadlock);
    assert_eq!((finding.severity, finding.confidence), (Severity::Critical, Confidence::Proven));
    assert_eq!(finding.title, "Tasks 1 and 2 wait for each other for 20s; 1 more waits behind");
    assert_eq!(finding.tasks, [TaskId(1), TaskId(2), TaskId(3)]);
    assert_eq!(finding.count, 3);
    assert_eq!(finding.place.as_deref(), Some("src/app.rs:1"));
    assert_eq!(
        finding.evidence[0],
        "Task 1 waits for a mutex lock (0x62) in app::step at src/app.rs:1 for 41s; task 2 holds it \
         (local `guard` in step at src/app.rs:2)."
    );
    assert!(finding.evidence[2].starts_with("1 more task waits behind it; that is task 3"));
    let pairs: Vec<_> = finding.edges.iter().map(|edge| (edge.waits.0, edge.holder.0)).collect();
    assert_eq!(pairs, [(1, 2), (2, 1)]);
}

#[test]
fn a_circle_that_somebody_can_leave_is_none() {
    // Held by a task that runs, or that waits for time.
    for kind in [WaitKind::Sleep, WaitKind::SocketRead, WaitKind::Notify, WaitKind::Unknown] {
        let goes_on = holding(waits(2, kind, "x"), HeldKind::Mutex, "b", false);
        assert!(found([locks(1, "b", &["a"]), goes_on]).is_empty(), "{kind:?}");
    }
    let mut running = locks(2, "a", &["b"]);
    running.state = TaskState::Running;
    assert!(found([locks(1, "b", &["a"]), running]).is_empty());
    // Beside another branch, with the guard around both: it may be given up.
    let mut either = locks(2, "a", &["b"]);
    either.branches = [branch("f", ("app", 3), WaitKind::Sleep, "", false)].into();
    assert!(found([locks(1, "b", &["a"]), either]).is_empty());
    // Woken, or handed what it waits for.
    let mut woken = locks(2, "a", &["b"]);
    woken.state = TaskState::Scheduled;
    assert!(found([locks(1, "b", &["a"]), woken]).is_empty());
    let mut granted = locks(4, "a", &["a"]);
    granted.wait.as_mut().unwrap().queue = None;
    assert!(found([granted]).is_empty());
    // A branch of which nothing is known may wake it too.
    let mut unknown = locks(2, "a", &["b"]);
    unknown.branches = [branch("f", ("app", 3), WaitKind::Mutex, "", false)].into();
    unknown.branches[0].wait = None;
    assert!(found([locks(1, "b", &["a"]), unknown]).is_empty());
}

#[test]
fn a_circle_that_only_giving_up_could_end_is_told_with_the_way_out() {
    // In a select beside a timer, as handlers often are: the guard goes with the branch.
    let mut either = locks(2, "a", &["b"]);
    either.holds[0].within = Some(0);
    either.branches = [branch("f", ("app", 3), WaitKind::Sleep, "", false)].into();
    let finding = one([locks(1, "b", &["a"]), either], FindingKind::Deadlock);
    assert_eq!((finding.severity, finding.confidence), (Severity::Critical, Confidence::Proven));
    let said = finding.evidence.join(" ");
    assert!(said.contains("Task 2 also awaits a sleep: should that come first"), "{said}");
    // Under a timeout: it ends by itself, so only what has lasted is told.
    let timed = |wait_ns| {
        let mut timed = locks(2, "a", &["b"]);
        let wait = timed.wait.as_mut().unwrap();
        (wait.deadline_in_ns, wait.wait_ns) = (Some(9 * SECOND as i64), wait_ns);
        [locks(1, "b", &["a"]), timed]
    };
    let finding = one(timed(2 * SECOND), FindingKind::Deadlock);
    assert_eq!(finding.severity, Severity::Warning);
    let said = finding.evidence.join(" ");
    assert!(
        said.contains("Only a timeout around the wait of task 2 ends it, due in 9.0s."),
        "{said}"
    );
    assert!(found(timed(SECOND / 2)).is_empty());
}

/// Two readers that only a writer in the queue keeps from each other.
fn readers(writer: Option<Task>) -> Vec<Task> {
    let first = holding(locks(1, "m", &[]), HeldKind::RwLockRead, "table", false);
    let second = holding(waits(2, WaitKind::RwLockRead, "table"), HeldKind::Mutex, "m", false);
    [first, second].into_iter().chain(writer).collect()
}

fn writer(place: Option<u32>) -> Task {
    let mut task = waits(3, WaitKind::RwLockWrite, "table");
    task.wait.as_mut().unwrap().mark = place.map(Mark::of_place).unwrap_or_default();
    task
}

#[test]
fn readers_wait_for_each_other_through_a_writer_in_the_queue() {
    let finding = one(readers(Some(writer(Some(0)))), FindingKind::Deadlock);
    assert_eq!((finding.severity, finding.confidence), (Severity::Critical, Confidence::Proven));
    let pairs: Vec<_> = finding.edges.iter().map(|edge| (edge.waits.0, edge.holder.0)).collect();
    assert_eq!(pairs, [(1, 2), (2, 3), (3, 1)]);
    let said = finding.evidence.join(" ");
    assert!(said.contains("before that task 3 queued to write"), "{said}");
    // One that reads twice with a writer between.
    let mut twice =
        holding(waits(1, WaitKind::RwLockRead, "table"), HeldKind::RwLockRead, "table", false);
    twice.wait.as_mut().unwrap().queue = Some(2);
    let finding = one([twice, writer(Some(0))], FindingKind::Deadlock);
    assert_eq!(finding.confidence, Confidence::Proven);
}

/// Should it stop waiting, the readers go on.
#[test]
fn a_writer_that_may_leave_the_queue_proves_no_deadlock_of_readers() {
    let mut timed = writer(Some(0));
    timed.wait.as_mut().unwrap().deadline_in_ns = Some(9 * SECOND as i64);
    let mut either = writer(Some(0));
    either.branches = [branch("f", ("app", 3), WaitKind::Sleep, "", false)].into();
    let not_surely_first = writer(None);
    for writer in [timed, either, not_surely_first] {
        let finding = one(readers(Some(writer)), FindingKind::Deadlock);
        assert_eq!(
            (finding.severity, finding.confidence),
            (Severity::Warning, Confidence::Likely),
            "{finding:#?}"
        );
        let said = finding.evidence.join(" ");
        assert!(said.contains("readers let each other in"), "{said}");
    }
    // It has been woken: it leaves.
    let mut woken = writer(Some(0));
    woken.state = TaskState::Scheduled;
    assert!(found(readers(Some(woken))).is_empty());
}

#[test]
fn readers_without_a_writer_that_is_seen_make_a_suspicion() {
    // The one that is seen stands behind another.
    for writer in [None, Some(writer(Some(1)))] {
        let finding = one(readers(writer), FindingKind::Deadlock);
        assert_eq!(
            (finding.severity, finding.confidence),
            (Severity::Warning, Confidence::Suspected)
        );
        let said = finding.evidence.join(" ");
        assert!(said.contains("whom no dump sees"), "{said}");
    }
    let mut short = readers(None);
    short[1].wait.as_mut().unwrap().wait_ns = SECOND;
    assert!(found(short).is_empty());
    // Another reader goes on; one that writes keeps all out.
    let other = holding(waits(4, WaitKind::Sleep, ""), HeldKind::RwLockRead, "table", false);
    assert!(found(readers(None).into_iter().chain([other])).is_empty());
    let writes = holding(locks(1, "m", &[]), HeldKind::RwLockWrite, "table", false);
    let wants = holding(waits(2, WaitKind::RwLockRead, "table"), HeldKind::Mutex, "m", false);
    assert_eq!(one([writes, wants], FindingKind::Deadlock).confidence, Confidence::Proven);
}

#[test]
fn a_writer_that_is_not_polled_keeps_readers_out() {
    let mut keeps = locks(3, "m", &[]);
    keeps.branches =
        [branch("app::write", ("app", 3), WaitKind::RwLockWrite, "table", true)].into();
    keeps.branches[0].wait.as_mut().unwrap().mark = Mark::of_place(0);
    let reads = holding(waits(2, WaitKind::RwLockRead, "table"), HeldKind::Mutex, "m", false);
    let other = holding(waits(1, WaitKind::Sleep, ""), HeldKind::RwLockRead, "table", false);
    let finding = one([other, reads.clone(), keeps.clone()], FindingKind::Futurelock);
    assert_eq!(finding.confidence, Confidence::Proven);
    // Somebody who is not seen has it; whether the reader comes first then,
    // only the places tell.
    keeps.branches[0].wait.as_mut().unwrap().mark = Mark::default();
    let finding = one([reads.clone(), keeps.clone()], FindingKind::Futurelock);
    assert_eq!(finding.confidence, Confidence::Likely);
    keeps.branches[0].wait.as_mut().unwrap().mark = Mark::of_place(1);
    assert!(found([reads, keeps]).is_empty());
}

#[test]
fn cells_initialised_from_each_other_are_a_deadlock() {
    let cell = |id, wants: &str, has: &str| {
        holding(waits(id, WaitKind::OnceCell, wants), HeldKind::Permit, has, false)
    };
    let finding = one([cell(1, "a", "b"), cell(2, "b", "a")], FindingKind::Deadlock);
    assert_eq!((finding.severity, finding.confidence), (Severity::Critical, Confidence::Proven));
    assert!(finding.evidence[0].contains("task 2 initialises it"), "{finding:#?}");
    let mut own = cell(3, "a", "a");
    own.wait.as_mut().unwrap().queue = Some(1);
    let finding = one([own], FindingKind::Deadlock);
    assert!(finding.title.contains("that it is at itself"), "{}", finding.title);
    // Who initialises the other is at work; or it has just been handed the cell.
    let busy = holding(waits(2, WaitKind::SocketRead, ""), HeldKind::Permit, "a", false);
    assert!(found([cell(1, "a", "b"), busy]).is_empty());
    let mut granted = cell(3, "a", "a");
    granted.wait.as_mut().unwrap().queue = None;
    assert!(found([granted]).is_empty());
}

#[test]
fn branches_of_one_task_can_lock_each_other_out() {
    let mut task = locks(5, "b", &["a"]);
    task.holds[0].within = Some(0);
    task = holding(task, HeldKind::Mutex, "b", false);
    task.holds[1].within = Some(1);
    task.branches = [branch("app::two", ("app", 8), WaitKind::Mutex, "a", false)].into();
    let finding = one([task], FindingKind::Deadlock);
    assert!(
        finding.title.starts_with("Two branches of task 5 wait for each other"),
        "{}",
        finding.title
    );
    assert_eq!((finding.tasks.len(), finding.edges.len()), (1, 2));
    assert_eq!(finding.edges[1].at.as_ref().unwrap().to_string(), "src/app.rs:8");
}

#[test]
fn a_lock_taken_twice_is_a_circle_of_one() {
    let finding = one([locks(4, "a", &["a"])], FindingKind::Deadlock);
    assert_eq!(finding.title, "Task 4 waits for a mutex lock on what it holds itself for 41s");
    assert_eq!(finding.confidence, Confidence::Proven);
}

#[test]
fn circles_through_channels_and_ends_are_found() {
    // 1 sends to 2, which waits for 3 to end, which waits for an answer of 1.
    let sends = holding(waits(1, WaitKind::MpscSend, "ch"), HeldKind::OneshotSender, "re", false);
    let mut joins = holding(waits(2, WaitKind::Join, ""), HeldKind::MpscReceiver, "ch", false);
    joins.wait.as_mut().unwrap().about_mut().task = Some(TaskId(3));
    let asks = waits(3, WaitKind::Oneshot, "re");
    let finding = one([sends, joins, asks], FindingKind::Deadlock);
    // Where a channel's end lives, only locals tell.
    assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Likely));
    assert_eq!(finding.edges.len(), 3);
    let said = finding.evidence.join(" ");
    assert!(said.contains("task 2 has the receiver"), "{said}");
    assert!(said.contains("waits for task 3 to end"), "{said}");
    assert!(said.contains("task 1 has the sender"), "{said}");
}

#[test]
fn a_receiver_is_stuck_only_if_every_sender_is_known() {
    let receives = |senders| {
        let mut task = holding(waits(1, WaitKind::MpscRecv, "ch"), HeldKind::Mutex, "a", false);
        task.wait.as_mut().unwrap().senders = senders;
        task
    };
    let sender = || holding(locks(2, "a", &[]), HeldKind::MpscSender, "ch", false);
    assert_eq!(found([receives(Some(1)), sender()])[0].kind, FindingKind::Deadlock);
    for senders in [None, Some(2)] {
        assert!(found([receives(senders), sender()]).is_empty(), "{senders:?}");
    }
}

#[test]
fn permits_make_a_suspicion_and_only_after_a_while() {
    let permit = |id, wants: &str, has: &str, wait_ns| {
        let mut task = holding(waits(id, WaitKind::Semaphore, wants), HeldKind::Permit, has, false);
        task.wait.as_mut().unwrap().wait_ns = wait_ns;
        task
    };
    let pair = |wait_ns| [permit(1, "a", "b", wait_ns), permit(2, "b", "a", wait_ns)];
    let finding = one(pair(20 * SECOND), FindingKind::Deadlock);
    assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Suspected));
    assert!(found(pair(SECOND)).is_empty());
    // Another holder goes on: it will give its permit back.
    let other = holding(waits(3, WaitKind::Sleep, ""), HeldKind::Permit, "a", false);
    assert!(found(pair(20 * SECOND).into_iter().chain([other])).is_empty());
}

#[test]
fn merged_functions_make_a_suspicion() {
    let mut unsure = locks(2, "a", &["b"]);
    let mut stack = (**unsure.stack.as_ref().unwrap()).clone();
    stack.or_one_of = vec!["app::twin".into()];
    unsure.stack = Some(stack.into());
    let finding = one([locks(1, "b", &["a"]), unsure], FindingKind::Deadlock);
    assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Suspected));
}

#[test]
fn a_lock_queued_for_by_a_future_that_is_not_polled_is_a_futurelock() {
    let task = |dormant, kind, on: &str| {
        let mut task = waiting(5, "cache::refresh", ("cache", 52), WaitKind::Mutex, "m");
        task.branches = [branch("cache::load", ("cache", 19), kind, on, dormant)].into();
        task
    };
    let finding = one([task(true, WaitKind::Mutex, "m")], FindingKind::Futurelock);
    assert_eq!(finding.confidence, Confidence::Proven);
    assert_eq!(
        finding.title,
        "Task 5 waits for a mutex lock behind its own future that it no longer polls (cache::load) \
         for 41s"
    );
    assert!(finding.edges[0].dormant);
    // Even while another holds it: the future is next.
    let holder = holding(waits(6, WaitKind::Sleep, ""), HeldKind::Mutex, "m", false);
    one([task(true, WaitKind::Mutex, "m"), holder], FindingKind::Futurelock);
    // Polled still, or in another queue.
    assert!(found([task(false, WaitKind::Mutex, "m")]).is_empty());
    assert!(found([task(true, WaitKind::Mutex, "n")]).is_empty());
    assert!(found([task(true, WaitKind::Sleep, "m")]).is_empty());
}

#[test]
fn a_guard_in_a_future_that_is_not_polled_is_a_futurelock() {
    let own = holding(locks(5, "m", &[]), HeldKind::Mutex, "m", true);
    let finding = one([own], FindingKind::Futurelock);
    assert!(finding.evidence[0].contains("a future that it keeps and does not poll"));
    // Through another task.
    let chain = [holding(locks(5, "x", &[]), HeldKind::Mutex, "m", true), locks(6, "m", &["x"])];
    let finding = one(chain, FindingKind::Futurelock);
    assert_eq!(finding.edges.len(), 2);
}

#[test]
fn an_answer_that_only_the_asker_could_give_never_comes() {
    let own = holding(waits(7, WaitKind::Oneshot, "re"), HeldKind::OneshotSender, "re", false);
    let finding = one([own], FindingKind::Unwakeable);
    assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Likely));
    let other = [
        waits(7, WaitKind::Oneshot, "re"),
        holding(waits(8, WaitKind::Sleep, ""), HeldKind::OneshotSender, "re", false),
    ];
    assert!(found(other).is_empty());
}

#[test]
fn alike_knots_are_one_finding() {
    let knot = |id: u64| {
        let (a, b) = (format!("a{id}"), format!("b{id}"));
        let mut tasks = [locks(id, &b, &[&a]), locks(id + 1, &a, &[&b])];
        for (task, line) in tasks.iter_mut().zip([3, 4]) {
            task.stack = waiting(1, "app::step", ("app", line), WaitKind::Mutex, "").stack;
        }
        tasks
    };
    let finding = one((0..50).flat_map(|n| knot(n * 10 + 1)), FindingKind::Deadlock);
    assert_eq!((finding.count, finding.tasks.len()), (100, 100));
    assert!(finding.title.starts_with("50 times alike: Tasks "), "{}", finding.title);
}

#[test]
fn many_that_wait_for_one_lock_are_a_convoy() {
    let crowd = |n: u64, wait_ns: u64| {
        (10..10 + n)
            .map(move |id| {
                let mut task = waiting(id, "app::get", ("app", 5), WaitKind::Mutex, "m");
                task.wait.as_mut().unwrap().wait_ns = wait_ns;
                task
            })
            .collect::<Vec<_>>()
    };
    let holder = || holding(waits(1, WaitKind::SocketRead, ""), HeldKind::Mutex, "m", false);
    let finding = one(crowd(61, 3 * SECOND).into_iter().chain([holder()]), FindingKind::LockConvoy);
    assert_eq!(
        finding.title,
        "61 tasks wait for a mutex lock (0x6d) held by task 1, the first for 3.0s"
    );
    assert_eq!((finding.confidence, finding.count), (Confidence::Proven, 61));
    let said = finding.evidence.join(" ");
    assert!(said.contains("Task 1 holds it (local `it` in step at src/app.rs:9)."), "{said}");
    assert!(said.contains("Now task 1 waits for an IO wait, read"), "{said}");
    // Its holder blocks a worker: worse.
    let mut snapshot = with(crowd(61, 3 * SECOND).into_iter().chain([holder()]));
    let mut blocked = sample::blocked();
    blocked.task = Some(TaskId(1));
    snapshot.blocked.push(blocked);
    let report = analyze(&snapshot);
    let convoy = report.findings.iter().find(|f| f.kind == FindingKind::LockConvoy).unwrap();
    assert_eq!((convoy.severity, convoy.worker), (Severity::Critical, Some(1)));
    // Few, or briefly: a lock at work.
    assert!(found(crowd(7, 3 * SECOND)).is_empty());
    assert!(found(crowd(500, SECOND / 2)).is_empty());
}

#[test]
fn a_full_channel_whose_receiver_waits_elsewhere_is_told() {
    let senders = || (10..13).map(|id| waits(id, WaitKind::MpscSend, "ch"));
    let receiver =
        |kind, on: &str| holding(waits(1, kind, on), HeldKind::MpscReceiver, "ch", false);
    let finding =
        one(senders().chain([receiver(WaitKind::SocketWrite, "")]), FindingKind::StuckChannel);
    assert_eq!(
        finding.title,
        "3 tasks cannot send: the channel is full and its receiver, task 1, waits for an IO wait, \
         write for 41s"
    );
    assert_eq!(finding.tasks[0], TaskId(1));
    // It receives, it sleeps, or it is told at the next channel.
    for (kind, on) in [(WaitKind::MpscRecv, "ch"), (WaitKind::Sleep, ""), (WaitKind::MpscSend, "x")]
    {
        assert!(found(senders().chain([receiver(kind, on)])).is_empty(), "{kind:?}");
    }
    let mut selects = receiver(WaitKind::Notify, "n");
    selects.branches = [branch("f", ("app", 3), WaitKind::MpscRecv, "ch", false)].into();
    assert!(found(senders().chain([selects])).is_empty());
}

/// A task of which no waker exists, and whose join handle is gone.
fn lost(id: u64) -> Task {
    let mut task = waits(id, WaitKind::Unknown, "");
    (task.wakers, task.joinable) = (Some(0), Some(false));
    task
}

#[test]
fn who_waits_for_what_a_lost_task_has_is_told_with_it() {
    for (wait, held) in [
        (WaitKind::MpscRecv, HeldKind::MpscSender),
        (WaitKind::Watch, HeldKind::WatchSender),
        (WaitKind::Broadcast, HeldKind::BroadcastSender),
        (WaitKind::Oneshot, HeldKind::OneshotSender),
        (WaitKind::MpscSend, HeldKind::MpscReceiver),
        (WaitKind::Mutex, HeldKind::Mutex),
    ] {
        let tasks = |senders: u32| {
            let mut waiter = holding(waits(2, wait, "r"), HeldKind::Mutex, "m", false);
            waiter.wait.as_mut().unwrap().senders = Some(senders);
            let behind = waits(3, WaitKind::Mutex, "m");
            [holding(lost(1), held, "r", false), waiter, behind]
        };
        let finding = one(tasks(1), FindingKind::Unwakeable);
        assert_eq!(finding.tasks, [TaskId(1), TaskId(2), TaskId(3)], "{wait:?}");
        assert_eq!((finding.count, finding.edges.len()), (3, 2), "{wait:?}");
        assert!(finding.title.ends_with("; 2 more wait behind"), "{}", finding.title);
        let pairs: Vec<_> =
            finding.edges.iter().map(|edge| (edge.waits.0, edge.holder.0)).collect();
        assert_eq!(pairs, [(2, 1), (3, 2)], "{wait:?}");
        // A sender that is not seen may still send.
        let counted = matches!(wait, WaitKind::MpscRecv | WaitKind::Watch | WaitKind::Broadcast);
        let finding = one(tasks(2), FindingKind::Unwakeable);
        assert_eq!(finding.tasks.len(), if counted { 1 } else { 3 }, "{wait:?}");
    }
}

#[test]
fn who_waits_for_what_may_yet_be_given_up_is_not() {
    let waiter = || waits(2, WaitKind::Oneshot, "r");
    let holder = |change: fn(&mut Task)| {
        let mut task = holding(lost(1), HeldKind::OneshotSender, "r", false);
        change(&mut task);
        [task, waiter()]
    };
    let told = |tasks| one(tasks, FindingKind::Unwakeable).tasks.len();
    assert_eq!(told(holder(|_| {})), 2);
    // Somebody may abort it.
    assert_eq!(told(holder(|task| task.joinable = Some(true))), 1);
    assert_eq!(told(holder(|task| task.joinable = None)), 1);
    // It has a waker.
    assert!(found(holder(|task| task.wakers = Some(1))).is_empty());
    // Its sender may have been dropped, and another be the one that is counted.
    assert_eq!(told(holder(|task| task.holds[0].perhaps_dropped = true)), 1);
    // The same of a guard, and permits may be where nobody looks.
    let lock = |doubtful| {
        let mut task = holding(lost(1), HeldKind::Mutex, "r", false);
        task.holds[0].perhaps_dropped = doubtful;
        told([task, waits(2, WaitKind::Mutex, "r")])
    };
    assert_eq!([lock(false), lock(true)], [2, 1]);
    let permit = holding(lost(1), HeldKind::Permit, "r", false);
    assert_eq!(told([permit, waits(2, WaitKind::Semaphore, "r")]), 1);
    // Whoever can abort it only waits for its end.
    let mut joins = waits(3, WaitKind::Join, "");
    joins.wait.as_mut().unwrap().about_mut().task = Some(TaskId(1));
    let kept = || holder(|task| task.joinable = Some(true));
    assert_eq!(told_of(kept().into_iter().chain([joins.clone()])), [1, 2, 3]);
    joins.branches = [branch("f", ("app", 3), WaitKind::Sleep, "", false)].into();
    assert_eq!(told_of(kept().into_iter().chain([joins])), [1]);
}

fn told_of(tasks: impl IntoIterator<Item = Task>) -> Vec<u64> {
    let mut tasks: Vec<u64> =
        one(tasks, FindingKind::Unwakeable).tasks.iter().map(|id| id.0).collect();
    tasks.sort_unstable();
    tasks
}

#[test]
fn a_channel_without_a_bound_that_fills_is_told() {
    let receiver = |kind, messages| {
        let mut task = holding(waits(1, kind, "n"), HeldKind::MpscReceiver, "ch", false);
        task.holds[0].backlog = std::num::NonZeroU32::new(messages);
        task
    };
    let finding = one([receiver(WaitKind::Notify, 1_204)], FindingKind::StuckChannel);
    assert_eq!(
        finding.title,
        "1204 messages lie in a channel without a bound: its receiver, task 1, waits for a \
         notified for 41s"
    );
    assert_eq!((finding.count, &finding.tasks[..]), (1, &[TaskId(1)][..]));
    // Few; briefly; it will go on; it receives at the same time.
    assert!(found([receiver(WaitKind::Notify, 999)]).is_empty());
    assert!(found([receiver(WaitKind::Sleep, 5_000)]).is_empty());
    let mut brief = receiver(WaitKind::Notify, 5_000);
    brief.wait.as_mut().unwrap().wait_ns = 9 * SECOND;
    assert!(found([brief]).is_empty());
    let mut selects = receiver(WaitKind::Notify, 5_000);
    selects.branches = [branch("f", ("app", 3), WaitKind::MpscRecv, "ch", false)].into();
    assert!(found([selects]).is_empty());
    // Nothing can wake its task.
    let mut lost = receiver(WaitKind::Unknown, 5_000);
    (lost.wakers, lost.joinable) = (Some(0), Some(false));
    let kinds: Vec<_> = found([lost]).iter().map(|finding| finding.kind).collect();
    assert!(kinds.contains(&FindingKind::StuckChannel), "{kinds:?}");
}

/// What a task does beside it says nothing of a branch that takes its time
/// with each message.
#[test]
fn a_receiver_in_a_branch_is_judged_by_that_branch() {
    let both = |kind| {
        let mut task =
            holding(waits(1, WaitKind::Notify, "n"), HeldKind::MpscReceiver, "ch", false);
        task.branches = [branch("f", ("app", 3), kind, "x", false)].into();
        task.holds[0].within = Some(1);
        [task, waits(10, WaitKind::MpscSend, "ch")]
    };
    assert!(found(both(WaitKind::Sleep)).is_empty());
    assert!(found(both(WaitKind::Unknown)).is_empty());
    one(both(WaitKind::SocketWrite), FindingKind::StuckChannel);
}

#[test]
fn checks_say_how_many_were_examined_or_why_none() {
    let check = |snapshot: &Snapshot, kind| {
        analyze(snapshot).checked.into_iter().find(|check| check.kind == kind).unwrap()
    };
    let read = check(&sample::stuck_server(), FindingKind::Deadlock);
    assert_eq!((read.examined, read.unavailable), (5, None));
    let unread = check(&sample::busy_server(), FindingKind::Deadlock);
    assert_eq!(unread.examined, 0);
    assert!(unread.unavailable.unwrap().contains("their await chains are not read"));
    let young = check(&sample::empty(), FindingKind::GrowingGroup).unavailable.unwrap();
    assert_eq!(young, "it takes 5 dumps over 1m00s; there have been 0 over 0ns");
}

/// Shows a trend `counts[n]` tasks at look `n`, each `apart` seconds after
/// the one before; `first` is the id of the first task at each look.
fn grown(counts: &[u64], apart: u64, first: fn(usize) -> u64) -> Vec<Finding> {
    let mut trend = Trend::default();
    let mut report = Vec::new();
    for (n, &count) in counts.iter().enumerate() {
        let mut snapshot = with(
            (first(n)..first(n) + count)
                .map(|id| waiting(id, "app::worker", ("worker", 5), WaitKind::MpscRecv, "ch")),
        );
        let at = std::time::Duration::from_secs(n as u64 * apart);
        snapshot.taken_at =
            (std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000) + at).into();
        snapshot.history = trend.observe(&snapshot);
        report = analyze(&snapshot).findings;
    }
    report
}

#[test]
fn a_group_that_only_grows_is_suspected() {
    let found = grown(&[60, 80, 90, 120, 150], 15, |_| 1);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].kind, FindingKind::GrowingGroup);
    assert_eq!(
        found[0].title,
        "150 tasks in app::worker (src/worker.rs:5), 60 1m00s ago, and none ends"
    );
    assert_eq!(found[0].tasks.len(), 10);
}

#[test]
fn groups_that_do_not_only_grow_are_load() {
    for (counts, apart) in [
        (&[60, 80, 90, 120, 119][..], 15),
        (&[60, 80, 80, 120, 150], 15),
        (&[60, 80, 120, 150], 20),
        (&[60, 80, 90, 120, 150], 11),
        (&[100, 110, 120, 130, 140], 15),
        (&[10, 20, 30, 40, 50], 15),
    ] {
        assert!(grown(counts, apart, |_| 1).is_empty(), "{counts:?}");
    }
    // More each time, but none of those that were there before.
    assert!(grown(&[60, 80, 90, 120, 150], 15, |n| 1 + n as u64 * 1_000).is_empty());
}

#[test]
fn looks_in_quick_succession_are_one() {
    assert!(grown(&[60, 70, 80, 90, 100, 110, 120, 130, 140, 150], 1, |_| 1).is_empty());
    assert_eq!(grown(&(0..70).map(|n| 60 + n * 2).collect::<Vec<_>>(), 1, |_| 1).len(), 1);
}

proptest! {
    /// Whatever waits for whatever: it ends, and a proven circle is one.
    #[test]
    fn any_graph_is_judged(
        tasks in prop::collection::vec(
            (0..11usize, 0..12u8, prop::collection::vec((0..9usize, 0..12u8, 0..4u32), 0..4),
             prop::option::of((0..11usize, 0..12u8, any::<bool>())), any::<bool>()),
            0..40,
        )
    ) {
        const WAITS: [WaitKind; 11] = [
            WaitKind::Mutex, WaitKind::RwLockRead, WaitKind::RwLockWrite, WaitKind::Semaphore,
            WaitKind::MpscRecv, WaitKind::MpscSend, WaitKind::Oneshot, WaitKind::Join,
            WaitKind::Sleep, WaitKind::Watch, WaitKind::Broadcast,
        ];
        const HELD: [HeldKind; 9] = [
            HeldKind::Mutex, HeldKind::RwLockRead, HeldKind::RwLockWrite, HeldKind::Permit,
            HeldKind::MpscSender, HeldKind::MpscReceiver, HeldKind::OneshotSender,
            HeldKind::WatchSender, HeldKind::BroadcastSender,
        ];
        let tasks = tasks.into_iter().enumerate().map(|(n, (kind, on, holds, other, lost))| {
            let mut task = waits(n as u64 + 1, WAITS[kind], &on.to_string());
            let wait = task.wait.as_mut().unwrap();
            wait.about_mut().task = Some(TaskId(on.into()));
            wait.senders = Some(1);
            if lost {
                (task.wakers, task.joinable) = (Some(0), Some(n % 2 == 0));
            }
            for (kind, on, place) in holds {
                task = holding(task, HELD[kind], &on.to_string(), place == 3);
                task.holds.last_mut().unwrap().within = (place < 2).then_some(place);
            }
            task.branches = other
                .map(|(kind, on, dormant)| branch("f", ("b", 1), WAITS[kind], &on.to_string(), dormant))
                .into_iter()
                .collect();
            task
        });
        let snapshot = with(tasks);
        for finding in analyze(&snapshot).findings {
            prop_assert!(!finding.title.is_empty() && !finding.tasks.is_empty());
            if finding.kind != FindingKind::Deadlock && finding.kind != FindingKind::Futurelock {
                continue;
            }
            let ring = finding.edges.iter().zip(finding.edges.iter().cycle().skip(1));
            for (edge, next) in ring {
                prop_assert_eq!(edge.holder, next.waits);
            }
        }
    }
}

/// The tasks that are proven to wait for ever.
fn for_ever(tasks: impl IntoIterator<Item = Task>) -> Vec<u64> {
    leaked(&with(tasks)).tasks.iter().map(|task| task.id.0).collect()
}

#[test]
fn a_deadlock_and_all_behind_it_wait_for_ever() {
    let circle = || [locks(1, "b", &["a"]), locks(2, "a", &["b"])];
    let sleeps = || waits(9, WaitKind::Sleep, "");
    let behind = || [locks(3, "a", &["c"]), locks(4, "c", &[]), sleeps()];
    assert_eq!(for_ever(circle().into_iter().chain(behind())), [1, 2, 3, 4]);
    // Whoever gives up some day lets those behind it go on, and nobody else.
    let mut timed = behind();
    timed[0].wait.as_mut().unwrap().deadline_in_ns = Some(9);
    assert_eq!(for_ever(circle().into_iter().chain(timed)), [1, 2]);
    let mut either = behind();
    either[0].branches = [branch("f", ("app", 3), WaitKind::Sleep, "", false)].into();
    assert_eq!(for_ever(circle().into_iter().chain(either)), [1, 2]);
    // In the circle itself, it undoes all.
    let mut timed = circle();
    timed[1].wait.as_mut().unwrap().deadline_in_ns = Some(9);
    assert!(for_ever(timed.into_iter().chain(behind())).is_empty());
    let mut either = circle();
    either[1].holds[0].within = Some(0);
    either[1].branches = [branch("f", ("app", 3), WaitKind::Sleep, "", false)].into();
    assert!(for_ever(either.into_iter().chain(behind())).is_empty());
}

#[test]
fn what_rests_on_more_than_locks_is_not_proven_to_wait_for_ever() {
    assert_eq!(for_ever([lost(1)]), [1]);
    let with = |change: fn(&mut Task)| {
        let mut task = lost(1);
        change(&mut task);
        for_ever([task])
    };
    assert!(with(|task| task.joinable = Some(true)).is_empty(), "an abort would end it");
    assert!(with(|task| task.wakers = Some(1)).is_empty());
    let behind =
        |wait, held| for_ever([holding(lost(1), held, "r", false), waits(2, wait, "r"), lost(3)]);
    assert_eq!(behind(WaitKind::Mutex, HeldKind::Mutex), [1, 2, 3]);
    assert_eq!(behind(WaitKind::RwLockWrite, HeldKind::RwLockRead), [1, 2, 3]);
    assert_eq!(behind(WaitKind::Oneshot, HeldKind::OneshotSender), [1, 3]);
    assert_eq!(behind(WaitKind::Semaphore, HeldKind::Permit), [1, 3]);
    let mut joins = waits(2, WaitKind::Join, "");
    joins.wait.as_mut().unwrap().about_mut().task = Some(TaskId(1));
    assert_eq!(for_ever([lost(1), joins]), [1, 2]);
}
