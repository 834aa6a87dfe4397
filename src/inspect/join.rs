//! Tasks as read from memory, joined with what the hooks know of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::tasks::{NumberMap, Owner, TaskRead, TasksRead};
use crate::model::{Flavor, Reason, Runtime, RuntimeId, Stack, Task, TaskState};
use crate::sys::thread;

/// A task of which only the memory is known: its times are unseen.
pub fn unhooked(read: TaskRead, runtime: RuntimeId) -> Task {
    Task {
        id: read.id,
        parent: None,
        runtime,
        spawned_at: read.spawned_at,
        method: None,
        peer: None,
        stream: None,
        state: read.state,
        worker: None,
        state_ns: 0,
        age_ns: 0,
        polls: 0,
        busy_ns: 0,
        longest_poll_ns: 0,
        unhooked: true,
        stack: read.stack,
        wait: read.wait,
        wakers: read.wakers,
        joinable: read.joinable,
        branches: read.branches,
        holds: read.holds,
    }
}

/// What a join came to.
#[derive(Debug)]
pub struct Joined {
    /// By id.
    pub tasks: Vec<Task>,
    /// Runtimes and `LocalSet`s that the hooks do not know, each with the id
    /// given to it here.
    pub strangers: Vec<(RuntimeId, Owner)>,
}

/// Joins the hooks' list, which was taken just before the image, with the
/// image's. Both are sorted by id.
///
/// The image is one instant, so its list is the one that holds: tasks that it
/// has and the hooks have not are added (begun since, of a `LocalSet`, of a
/// runtime without hooks); tasks that it has not are dropped as ended, if
/// their runtime was read to the end. Times, method and peer come from the
/// hooks.
pub fn join(hooked: Vec<Task>, read: TasksRead, known: &HashMap<u64, RuntimeId>) -> Joined {
    let runtimes = runtimes_of(&hooked, &read, known);
    let whole: Vec<RuntimeId> = read
        .owners
        .iter()
        .filter(|owner| owner.counted && owner.read >= owner.alive)
        .filter_map(|owner| runtimes.get(&owner.address).copied())
        .collect();
    let runtime_of =
        |read: &TaskRead| runtimes.get(&read.owner).copied().unwrap_or(RuntimeId(u64::MAX));
    // In place: a second list of 100,000 tasks would cost 20 MB.
    let mut tasks = hooked;
    let mut strange = Vec::new();
    let mut images = read.tasks.into_iter().peekable();
    tasks.retain_mut(|task| {
        thread::give_way();
        while let Some(image) = images.next_if(|image| image.id < task.id) {
            strange.push(image);
        }
        match images.next_if(|image| image.id == task.id) {
            Some(image) => overlay(task, image),
            None => return !whole.contains(&task.runtime),
        }
        true
    });
    strange.extend(images);
    if !strange.is_empty() {
        tasks.reserve_exact(strange.len());
        tasks.extend(strange.into_iter().map(|image| {
            let runtime = runtime_of(&image);
            unhooked(image, runtime)
        }));
        // Two sorted runs: the standard library merges them.
        tasks.sort_by_key(|task| task.id);
    }
    let strangers = read
        .owners
        .into_iter()
        .filter_map(|owner| {
            let id = runtimes.get(&owner.address).copied()?;
            (id.0 >= FIRST_STRANGER).then_some((id, owner))
        })
        .collect();
    Joined { tasks, strangers }
}

/// A runtime or `LocalSet` of which only the memory is known.
pub fn runtime(id: RuntimeId, owner: &Owner) -> Runtime {
    let flavor = match owner.flavor {
        "multi_thread" => Flavor::MultiThread,
        "current_thread" => Flavor::CurrentThread,
        _ => Flavor::Other,
    };
    Runtime {
        id,
        name: format!("{} at {:#x}", owner.flavor, owner.address).into(),
        flavor,
        workers: 0,
        alive_tasks: owner.alive,
        global_queue_depth: 0,
        spawned_tasks: None,
        blocking_threads: None,
        idle_blocking_threads: None,
        blocking_queue_depth: None,
        polls: None,
        busy_ns: 0,
        parks: 0,
        steals: None,
        budget_forced_yields: None,
        mean_poll_ns: None,
    }
}

/// Runtimes that the hooks know are numbered below.
pub const FIRST_STRANGER: u64 = 1_000;

/// Which runtime each owner is: as known, or that of a task that both lists
/// have, or a stranger.
fn runtimes_of(
    hooked: &[Task],
    read: &TasksRead,
    known: &HashMap<u64, RuntimeId>,
) -> HashMap<u64, RuntimeId> {
    let mut runtimes = known.clone();
    let mut open = read.owners.iter().filter(|owner| !known.contains_key(&owner.address)).count();
    let mut all = hooked.iter().peekable();
    for image in &read.tasks {
        if open == 0 {
            break;
        }
        thread::give_way();
        while all.next_if(|task| task.id < image.id).is_some() {}
        if let Some(task) = all.next_if(|task| task.id == image.id)
            && let std::collections::hash_map::Entry::Vacant(entry) = runtimes.entry(image.owner)
        {
            entry.insert(task.runtime);
            open -= 1;
        }
    }
    let mut taken: HashSet<RuntimeId> = runtimes.values().copied().collect();
    for owner in &read.owners {
        runtimes.entry(owner.address).or_insert_with(|| {
            // By its own id, so that it is the same in the next dump. tokio counts
            // from 1 on; two versions in one program count each for itself.
            let mut id = FIRST_STRANGER + u64::from(u32::try_from(owner.id).unwrap_or(0));
            while !taken.insert(RuntimeId(id)) {
                id += 1;
            }
            RuntimeId(id)
        });
    }
    runtimes
}

/// Where the debug server's and the console's own tasks wait.
const OWN: [&str; 2] = ["taskprof::serve::", "taskprof::console::"];

/// Takes the runtimes of the debug server itself out: they are of whoever
/// asks, not of the program. Runtimes that the hooks know stay.
pub fn without_own(read: &mut TasksRead, hooked: &[Task]) {
    // Most tasks share a few stacks: each is looked through once.
    let mut seen: NumberMap<*const Stack, bool> = NumberMap::default();
    let mut own = HashSet::new();
    for task in &read.tasks {
        thread::give_way();
        let Some(stack) = &task.stack else { continue };
        let is_own = *seen.entry(Arc::as_ptr(stack)).or_insert_with(|| {
            let is_own = |name: &str| OWN.iter().any(|own| name.starts_with(own));
            stack.frames.iter().any(|frame| is_own(&frame.function_full))
        });
        if is_own {
            own.insert(task.owner);
        }
    }
    if own.is_empty() {
        return;
    }
    for task in &read.tasks {
        if own.contains(&task.owner)
            && hooked.binary_search_by_key(&task.id, |hooked| hooked.id).is_ok()
        {
            own.remove(&task.owner);
        }
    }
    let all = read.tasks.len();
    read.tasks.retain(|task| !own.contains(&task.owner));
    let gone = (all - read.tasks.len()) as u64;
    // Said of each task that is told.
    for of_each in read.missing.iter_mut().filter(|it| it.reason == Reason::TypesOnly) {
        of_each.count = of_each.count.saturating_sub(gone);
    }
    read.owners.retain(|owner| !own.contains(&owner.address));
}

/// What the hooks know of a task that their list did not have yet.
pub fn introduce(task: &mut Task, hooked: Task) {
    let read = std::mem::replace(task, hooked);
    task.unhooked = false;
    task.state = read.state;
    task.worker = None;
    task.stack = read.stack;
    task.wait = read.wait;
    task.branches = read.branches;
    task.holds = read.holds;
    task.wakers = read.wakers;
    task.joinable = read.joinable;
}

/// What the memory adds to what the hooks know. Native stacks are in already.
fn overlay(task: &mut Task, image: TaskRead) {
    let running = |state| state == TaskState::Running;
    match (running(task.state), running(image.state)) {
        // Its native stack says where; memory holds what was before this poll.
        (true, true) => {}
        // The image is the later look: it began or ended a poll in between.
        (true, false) | (false, true) => {
            task.state = image.state;
            task.state_ns = 0;
            task.worker = None;
            task.stack = image.stack;
        }
        (false, false) => {
            // The hooks do not see a wake; the task's own state does.
            if image.state == TaskState::Scheduled || task.state == TaskState::Unknown {
                task.state = image.state;
            }
            task.stack = image.stack;
        }
    }
    task.wakers = image.wakers;
    task.joinable = image.joinable;
    task.branches = image.branches;
    task.holds = image.holds;
    task.wait = image.wait;
    if task.spawned_at.is_none() {
        task.spawned_at = image.spawned_at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Frame, FrameKind, Location, Missing, Stack, StackSource, TaskId, sample};

    fn image(id: u64, owner: u64, state: TaskState) -> TaskRead {
        TaskRead { owner, state, ..TaskRead::unseen(TaskId(id)) }
    }

    fn hooked(id: u64, runtime: u64, state: TaskState) -> Task {
        let place = Location { file: "src/a.rs".into(), line: 1, column: 1 };
        Task { runtime: RuntimeId(runtime), state, ..sample::task(id, &place.into()) }
    }

    fn owner(address: u64, alive: u64, read: u64) -> Owner {
        Owner { address, id: address & 0xf0, flavor: "multi_thread", alive, read, counted: true }
    }

    fn ids(joined: &Joined) -> Vec<(u64, u64)> {
        joined.tasks.iter().map(|task| (task.id.0, task.runtime.0)).collect()
    }

    #[test]
    fn the_list_of_the_image_holds_and_the_hooks_give_it_times() {
        let hooks = vec![
            hooked(1, 0, TaskState::Idle),
            hooked(3, 0, TaskState::Idle),
            hooked(7, 0, TaskState::Idle),
        ];
        let read = TasksRead {
            tasks: vec![
                image(1, 0xa0, TaskState::Scheduled),
                image(2, 0xb0, TaskState::Idle),
                image(7, 0xa0, TaskState::Idle),
                image(9, 0xa0, TaskState::Scheduled),
            ],
            owners: vec![owner(0xa0, 3, 3), owner(0xb0, 1, 1)],
            polling: Vec::new(),
            ..TasksRead::default()
        };
        let joined = join(hooks.clone(), read, &HashMap::new());
        // 3 ended before the image; 2 is of a LocalSet; 9 began since.
        assert_eq!(ids(&joined), [(1, 0), (2, FIRST_STRANGER + 0xb0), (7, 0), (9, 0)]);
        assert_eq!(joined.tasks[0].state, TaskState::Scheduled, "woken, says its header");
        assert_eq!(joined.tasks[0].age_ns, hooks[0].age_ns);
        assert!(joined.tasks[1].unhooked && !joined.tasks[2].unhooked);
        assert_eq!(joined.strangers, [(RuntimeId(FIRST_STRANGER + 0xb0), owner(0xb0, 1, 1))]);
    }

    #[test]
    fn the_debug_servers_own_tasks_are_not_the_programs() {
        let waiting_in = |function: &str, id, owner| TaskRead {
            stack: Some(std::sync::Arc::new(Stack {
                source: StackSource::Await,
                frames: vec![Frame {
                    function: function.into(),
                    function_full: function.into(),
                    location: None,
                    kind: FrameKind::Library,
                    inlined: false,
                    address: 0,
                }],
                truncated: None,
                or_one_of: Vec::new(),
            })),
            ..image(id, owner, TaskState::Idle)
        };
        let mut read = TasksRead {
            tasks: vec![
                waiting_in("taskprof::serve::server::accept", 1, 0xa0),
                image(2, 0xa0, TaskState::Idle),
                waiting_in("app::main", 3, 0xb0),
                // Under the hooks' eyes it is the program's, whatever it does.
                waiting_in("taskprof::serve::server::accept", 4, 0xc0),
            ],
            owners: vec![owner(0xa0, 2, 2), owner(0xb0, 1, 1), owner(0xc0, 1, 1)],
            ..TasksRead::default()
        };
        let said = Missing { reason: Reason::TypesOnly, count: 4, detail: String::new() };
        read.missing.push(said);
        without_own(&mut read, &[hooked(4, 0, TaskState::Idle)]);
        assert_eq!(read.missing[0].count, 2, "of the two that are told");
        let ids: Vec<u64> = read.tasks.iter().map(|task| task.id.0).collect();
        assert_eq!((ids, read.owners.len(), read.alive()), (vec![3, 4], 2, 2));
    }

    #[test]
    fn tasks_that_an_incomplete_image_lacks_are_kept() {
        let hooks = vec![hooked(1, 0, TaskState::Idle), hooked(3, 0, TaskState::Idle)];
        let read = TasksRead {
            tasks: vec![image(1, 0xa0, TaskState::Idle)],
            owners: vec![owner(0xa0, 2, 1)],
            polling: Vec::new(),
            ..TasksRead::default()
        };
        assert_eq!(ids(&join(hooks, read, &HashMap::new())), [(1, 0), (3, 0)]);
    }

    #[test]
    fn a_stranger_keeps_its_id_when_another_comes() {
        let strangers = |addresses: &[u64]| {
            let owners = addresses.iter().map(|&address| owner(address, 0, 0)).collect();
            let read = TasksRead { owners, ..TasksRead::default() };
            let joined = join(Vec::new(), read, &HashMap::new());
            let ids = joined.strangers.into_iter();
            ids.map(|(id, owner)| (owner.address, id.0)).collect::<Vec<_>>()
        };
        let [later] = strangers(&[0xb0])[..] else { panic!("one") };
        let both = strangers(&[0xa0, 0xb0]);
        assert!(both.contains(&later), "{later:x?} in {both:x?}");
        // Of another tokio in the same program, or with an id that is not known.
        let alike = strangers(&[0x1b0, 0x2b0, 0x300, 0x400]);
        let ids: HashSet<u64> = alike.iter().map(|(_, id)| *id).collect();
        assert_eq!(ids.len(), 4, "{alike:x?}");
    }

    #[test]
    fn a_runtime_without_tasks_in_common_is_known_by_its_address() {
        let read = TasksRead {
            tasks: vec![image(4, 0xc0, TaskState::Idle)],
            owners: vec![owner(0xc0, 1, 1)],
            polling: Vec::new(),
            ..TasksRead::default()
        };
        let known = HashMap::from([(0xc0, RuntimeId(2))]);
        let joined = join(Vec::new(), read, &known);
        assert_eq!(ids(&joined), [(4, 2)]);
        assert!(joined.strangers.is_empty());
    }
}
