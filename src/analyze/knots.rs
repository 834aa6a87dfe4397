//! Circles among stuck tasks: what keeps them, and all behind them, from moving.

use std::collections::{HashMap, VecDeque};

use super::graph::{Graph, Hold, Side};
use crate::model::{Branch, Confidence, Stack, Wait};

/// One task of a circle waits for the next.
#[derive(Clone, Copy)]
pub struct Link<'a> {
    /// Index of the task that waits.
    pub from: usize,
    pub wait: &'a Wait,
    pub side: Side,
    /// Who holds it; the task itself, if it waits behind a future of its own.
    pub hold: Hold<'a>,
    /// That future.
    pub own: Option<&'a Branch>,
}

/// Tasks that only each other could move.
pub struct Knot<'a> {
    /// The shortest circle through the oldest of them.
    pub links: Vec<Link<'a>>,
    /// All of them, oldest first.
    pub tasks: Vec<usize>,
    /// Stuck tasks that are not part of it but wait for it, oldest first.
    pub behind: Vec<usize>,
    pub confidence: Confidence,
}

/// All knots, each stuck task in one or behind one.
pub fn knots<'a>(graph: &Graph<'a>) -> Vec<Knot<'a>> {
    let mut found: Vec<Knot<'a>> = Vec::new();
    let mut own: Vec<_> = graph.own.iter().filter(|&(&task, _)| graph.stuck[task]).collect();
    own.sort_unstable_by_key(|&(task, _)| *task);
    for (&task, &branch) in own {
        let Some(&(_, wait)) = graph.waits[task].first() else { continue };
        let frame = branch.stack.user_frame().or_else(|| branch.stack.frames.first());
        let hold = Hold {
            task,
            local: None,
            function: frame.map(|frame| &*frame.function),
            location: frame.and_then(|frame| frame.location.as_ref()),
            dormant: true,
            queued: true,
        };
        let link = Link { from: task, wait, side: Side::Lock, hold, own: Some(branch) };
        found.push(knot(graph, vec![task], vec![link]));
    }
    for tasks in components(graph) {
        if matches!(tasks[..], [one] if graph.own.contains_key(&one)) {
            continue;
        }
        if let Some(links) = circle(graph, &tasks) {
            found.push(knot(graph, tasks, links));
        }
    }
    behind(graph, &mut found);
    found
}

fn knot<'a>(graph: &Graph<'a>, tasks: Vec<usize>, links: Vec<Link<'a>>) -> Knot<'a> {
    let unsure = |stack: Option<&Stack>| {
        stack.is_none_or(|stack| stack.truncated.is_some() || !stack.or_one_of.is_empty())
    };
    let suspected = links.iter().any(|link| {
        unsure(graph.tasks[link.from].stack.as_deref())
            // Permits may be held where nobody looks; a free lock may be held there too.
            || link.side == Side::Permits
            || (link.hold.queued && link.own.is_none())
    });
    let confidence = if suspected { Confidence::Suspected } else { Confidence::Proven };
    Knot { links, tasks, behind: Vec::new(), confidence }
}

/// Where one can go from a vertex: tasks come first, resources behind them.
fn next(graph: &Graph<'_>, vertex: usize, at: usize) -> Option<usize> {
    let tasks = graph.tasks.len();
    if vertex < tasks {
        graph.waits[vertex].get(at).map(|&(node, _)| tasks + node)
    } else {
        graph.nodes[vertex - tasks].holds.get(at).map(|hold| hold.task)
    }
}

fn passable(graph: &Graph<'_>, vertex: usize) -> bool {
    vertex >= graph.tasks.len() || graph.stuck[vertex]
}

/// Strongly connected components with a circle in them, by their tasks
/// (Tarjan's algorithm, without recursion: chains can be long).
fn components(graph: &Graph<'_>) -> Vec<Vec<usize>> {
    const NEW: usize = usize::MAX;
    let tasks = graph.tasks.len();
    let vertices = tasks + graph.nodes.len();
    let mut number = vec![NEW; vertices];
    let mut low = vec![0; vertices];
    let mut open = vec![false; vertices];
    let mut path: Vec<usize> = Vec::new();
    let mut count = 0;
    let mut found = Vec::new();
    for start in (0..tasks).filter(|&task| graph.stuck[task]) {
        if number[start] != NEW {
            continue;
        }
        let mut calls = vec![(start, 0)];
        while let Some(&mut (vertex, ref mut at)) = calls.last_mut() {
            if *at == 0 {
                (number[vertex], low[vertex]) = (count, count);
                count += 1;
                path.push(vertex);
                open[vertex] = true;
            }
            let to = next(graph, vertex, *at);
            *at += 1;
            match to {
                Some(to) if !passable(graph, to) => {}
                Some(to) if number[to] == NEW => calls.push((to, 0)),
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
                        // A task and a resource at least: alone there is no circle.
                        if part.len() > 1 {
                            part.retain(|&on| on < tasks);
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

/// The shortest way from the oldest task of a component back to itself.
fn circle<'a>(graph: &Graph<'a>, component: &[usize]) -> Option<Vec<Link<'a>>> {
    let tasks = graph.tasks.len();
    let start = *component.first()?;
    let mut came: HashMap<usize, usize> = HashMap::new();
    let mut queue = VecDeque::from([start]);
    let last = 'search: loop {
        let vertex = queue.pop_front()?;
        let mut at = 0;
        while let Some(to) = next(graph, vertex, at) {
            at += 1;
            if to == start {
                break 'search vertex;
            }
            let inside = to >= tasks || component.binary_search(&to).is_ok();
            if inside && !came.contains_key(&to) {
                came.insert(to, vertex);
                queue.push_back(to);
            }
        }
    };
    // Back along the way: resource, task, resource, task, ... start.
    let mut links = Vec::new();
    let (mut node, mut holder) = (last, start);
    loop {
        let from = *came.get(&node)?;
        let on = &graph.nodes[node - tasks];
        let hold = *on.holds.iter().find(|hold| hold.task == holder)?;
        let (_, wait) = *graph.waits[from].iter().find(|(at, _)| tasks + at == node)?;
        links.push(Link { from, wait, side: on.side, hold, own: None });
        if from == start {
            break;
        }
        (node, holder) = (*came.get(&from)?, from);
    }
    links.reverse();
    Some(links)
}

/// Gives every other stuck task to the first knot that it waits for.
fn behind(graph: &Graph<'_>, knots: &mut [Knot<'_>]) {
    let mut held_by: HashMap<usize, Vec<usize>> = HashMap::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        for hold in node.holds.iter().filter(|hold| graph.stuck[hold.task]) {
            held_by.entry(hold.task).or_default().push(at);
        }
    }
    let mut seen: Vec<bool> = vec![false; graph.tasks.len()];
    let mut asked: Vec<bool> = vec![false; graph.nodes.len()];
    knots.iter().flat_map(|knot| &knot.tasks).for_each(|&task| seen[task] = true);
    for knot in knots {
        let mut queue: Vec<usize> = knot.tasks.clone();
        while let Some(task) = queue.pop() {
            for &node in held_by.get(&task).into_iter().flatten() {
                if std::mem::replace(&mut asked[node], true) {
                    continue;
                }
                for &(waiter, _) in &graph.nodes[node].waiters {
                    if graph.stuck[waiter] && !std::mem::replace(&mut seen[waiter], true) {
                        knot.behind.push(waiter);
                        queue.push(waiter);
                    }
                }
            }
        }
        knot.behind.sort_unstable();
    }
}
