//! Circles among stuck tasks: what keeps them, and all behind them, from moving.

use std::collections::{HashMap, VecDeque};

use super::graph::{Graph, Hold, Side, Tip};
use crate::model::{Branch, Confidence, HeldKind, Stack, Wait};

/// One wait of a circle, and who could end it.
#[derive(Clone, Copy)]
pub struct Link<'a> {
    /// Index of the wait.
    pub tip: usize,
    /// Index of its task.
    pub from: usize,
    pub wait: &'a Wait,
    pub side: Side,
    /// Who holds it; the task itself, if it waits behind a future of its own.
    pub hold: Hold<'a>,
    /// That future.
    pub own: Option<&'a Branch>,
}

/// Waits that only each other could end.
pub struct Knot<'a> {
    /// The shortest circle through the oldest of them.
    pub links: Vec<Link<'a>>,
    /// All their tasks, oldest first.
    pub tasks: Vec<usize>,
    /// Tasks that wait for it without being part of it, oldest first.
    pub behind: Vec<usize>,
    pub confidence: Confidence,
    /// Index of a task in the circle that awaits something else as well, or
    /// whose wait a timer ends: then it gives up its place.
    pub way_out: Option<usize>,
    /// One of its waits stands under a timeout.
    pub timed: bool,
}

/// All knots, each stuck wait in one or behind one.
pub fn knots<'a>(graph: &Graph<'a>) -> Vec<Knot<'a>> {
    let mut found: Vec<Knot<'a>> = Vec::new();
    for (at, tip) in graph.tips.iter().enumerate().filter(|&(at, _)| graph.stuck[at]) {
        let (Some(branch), Some(wait)) = (tip.own, tip.wait) else { continue };
        let place = Hold::in_queue(tip.task, Some(&*branch.stack));
        let hold = Hold { within: Some(at), dormant: true, ..place };
        let side = Side::Lock;
        let link = Link { tip: at, from: tip.task, wait, side, hold, own: Some(branch) };
        found.push(knot(graph, &[at], vec![link]));
    }
    for tips in components(graph) {
        // Told above.
        if matches!(tips[..], [one] if graph.tips[one].own.is_some()) {
            continue;
        }
        if let Some(links) = circle(graph, &tips) {
            found.push(knot(graph, &tips, links));
        }
    }
    behind(graph, &mut found);
    found
}

fn knot<'a>(graph: &Graph<'a>, tips: &[usize], links: Vec<Link<'a>>) -> Knot<'a> {
    let unsure = |stack: Option<&Stack>| {
        stack.is_none_or(|stack| stack.truncated.is_some() || !stack.or_one_of.is_empty())
    };
    let suspected = links.iter().any(|link| {
        unsure(graph.tasks[link.from].stack.as_deref())
            // Permits may be held where nobody looks; a free lock may be held there too.
            || link.side == Side::Permits
            || (link.side == Side::Lock && link.hold.queued && link.own.is_none())
            // That the lock is taken it knows itself; by whom, only the guard tells.
            || (matches!(link.side, Side::Lock | Side::Cell) && link.hold.doubtful)
            || (link.side == Side::Read && link.own.is_none() && is_unseen(&link.hold))
    });
    // A lock knows that it is held, and a task that it lives; that the end of
    // a channel has not been moved elsewhere, only its owner's locals tell. And
    // who keeps readers out by a place in the queue may give it up unnoticed.
    let certain = |link: &Link<'_>| !link.side.is_channel() && !may_leave(graph, link);
    let confidence = if suspected {
        Confidence::Suspected
    } else if links.iter().all(certain) {
        Confidence::Proven
    } else {
        Confidence::Likely
    };
    let mut tasks: Vec<usize> = tips.iter().map(|&tip| graph.tips[tip].task).collect();
    tasks.sort_unstable();
    tasks.dedup();
    let timed = links.iter().any(|link| link.wait.deadline_in_ns.is_some());
    let out = |link: &&Link<'_>| {
        link.wait.deadline_in_ns.is_some() || graph.ways_out(link.from).next().is_some()
    };
    let way_out = links.iter().find(out).map(|link| link.from);
    Knot { links, tasks, behind: Vec::new(), confidence, way_out, timed }
}

/// Readers let each other in: it is not this one that keeps them out, but a
/// writer behind it whom no dump sees.
fn is_unseen(hold: &Hold<'_>) -> bool {
    !hold.queued && (hold.doubtful || hold.kind != Some(HeldKind::RwLockWrite))
}

/// What readers wait for is a writer in the queue that might stop waiting, or
/// might not be the first: then they go on.
pub fn may_leave(graph: &Graph<'_>, link: &Link<'_>) -> bool {
    let hold = &link.hold;
    link.side == Side::Read
        && link.own.is_none()
        && hold.queued
        && (hold.doubtful
            || graph
                .waits_of(hold.task)
                .iter()
                .any(|tip| tip.wait.is_none_or(|wait| wait.deadline_in_ns.is_some()))
            || graph.ways_out(hold.task).next().is_some())
}

/// Where one can go from a vertex: waits come first, resources behind them.
fn next<'g>(graph: &'g Graph<'_>, vertex: usize) -> Box<dyn Iterator<Item = usize> + 'g> {
    let tips = graph.tips.len();
    if vertex < tips {
        Box::new(graph.tips[vertex].node.map(|node| tips + node).into_iter())
    } else {
        let holds = &graph.nodes[vertex - tips].holds;
        Box::new(holds.iter().flat_map(|hold| graph.keepers(hold)).filter(|&tip| graph.stuck[tip]))
    }
}

/// Strongly connected components with a circle in them, by their waits
/// (Tarjan's algorithm, without recursion: chains can be long).
fn components(graph: &Graph<'_>) -> Vec<Vec<usize>> {
    const NEW: usize = usize::MAX;
    let tips = graph.tips.len();
    let vertices = tips + graph.nodes.len();
    let mut number = vec![NEW; vertices];
    let mut low = vec![0; vertices];
    let mut open = vec![false; vertices];
    let mut path: Vec<usize> = Vec::new();
    let mut count = 0;
    let mut found = Vec::new();
    for start in (0..tips).filter(|&tip| graph.stuck[tip]) {
        if number[start] != NEW {
            continue;
        }
        let mut calls = vec![(start, None)];
        while let Some(&mut (vertex, ref mut rest)) = calls.last_mut() {
            let rest = rest.get_or_insert_with(|| {
                (number[vertex], low[vertex]) = (count, count);
                count += 1;
                path.push(vertex);
                open[vertex] = true;
                next(graph, vertex)
            });
            match rest.next() {
                Some(to) if number[to] == NEW => calls.push((to, None)),
                Some(to) if open[to] => low[vertex] = low[vertex].min(number[to]),
                Some(_) => {}
                None => {
                    calls.pop();
                    if let Some(&(before, _)) = calls.last() {
                        low[before] = low[before].min(low[vertex]);
                    }
                    if low[vertex] == number[vertex] {
                        let from = path.iter().rposition(|&on| on == vertex).unwrap_or(0);
                        let mut part: Vec<usize> = path.drain(from..).collect();
                        part.iter().for_each(|&on| open[on] = false);
                        // A wait and a resource at least: alone there is no circle.
                        if part.len() > 1 {
                            part.retain(|&on| on < tips);
                            part.sort_unstable();
                            found.push(part);
                        }
                    }
                }
            }
        }
    }
    found
}

/// The shortest way from the oldest wait of a component back to itself.
fn circle<'a>(graph: &Graph<'a>, component: &[usize]) -> Option<Vec<Link<'a>>> {
    let tips = graph.tips.len();
    let start = *component.first()?;
    let mut came: HashMap<usize, usize> = HashMap::new();
    let mut queue = VecDeque::from([start]);
    let last = 'search: loop {
        let vertex = queue.pop_front()?;
        for to in next(graph, vertex) {
            if to == start {
                break 'search vertex;
            }
            let inside = to >= tips || component.binary_search(&to).is_ok();
            if inside && !came.contains_key(&to) {
                came.insert(to, vertex);
                queue.push_back(to);
            }
        }
    };
    // Back along the way: resource, wait, resource, wait, ... start.
    let mut links = Vec::new();
    let (mut node, mut keeper) = (last, start);
    loop {
        let tip = *came.get(&node)?;
        let on = &graph.nodes[node - tips];
        let hold = *on.holds.iter().find(|hold| graph.keepers(hold).contains(&keeper))?;
        let Tip { task: from, wait, .. } = graph.tips[tip];
        links.push(Link { tip, from, wait: wait?, side: on.side, hold, own: None });
        if tip == start {
            break;
        }
        (node, keeper) = (*came.get(&tip)?, tip);
    }
    links.reverse();
    Some(links)
}

/// Gives every other stuck wait to the first knot that it is behind.
fn behind(graph: &Graph<'_>, knots: &mut [Knot<'_>]) {
    let mut kept_by: HashMap<usize, Vec<usize>> = HashMap::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        for tip in node.holds.iter().flat_map(|hold| graph.keepers(hold)) {
            if graph.stuck[tip] {
                kept_by.entry(tip).or_default().push(at);
            }
        }
    }
    let mut seen: Vec<bool> = vec![false; graph.tasks.len()];
    let mut asked: Vec<bool> = vec![false; graph.nodes.len()];
    knots.iter().flat_map(|knot| &knot.tasks).for_each(|&task| seen[task] = true);
    for knot in knots {
        let mut queue: Vec<usize> = knot.links.iter().map(|link| link.tip).collect();
        while let Some(tip) = queue.pop() {
            for &node in kept_by.get(&tip).into_iter().flatten() {
                if std::mem::replace(&mut asked[node], true) {
                    continue;
                }
                for &waiter in &graph.nodes[node].waiters {
                    let task = graph.tips[waiter].task;
                    if graph.stuck[waiter] {
                        if !std::mem::replace(&mut seen[task], true) {
                            knot.behind.push(task);
                        }
                        queue.push(waiter);
                    }
                }
            }
        }
        knot.behind.sort_unstable();
    }
}
