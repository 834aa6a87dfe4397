//! Which types a dump can need.
//!
//! From the tasks' types on everything that lies in a value, and what pointers
//! lead to if a future, a guard or a wait can be there. A type *matters* if it
//! is one that polls, belongs to a crate whose insides are read, or has a part
//! that matters; pointers to what does not matter are cut.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::super::{Dwarf, Layouts as _, Shape, TaskType, Type, TypeId};
use crate::error::Result;

/// Crates whose types are looked into for waits, guards and streams.
const READ: [&str; 10] = [
    "tokio::",
    "tokio_util::",
    "tokio_stream::",
    "futures_",
    "async_",
    "hyper",
    "h2::",
    "tonic::",
    "tower",
    "axum",
];
/// `dyn`s behind which futures are kept: a value that owns one leads on.
const DYN: [&str; 3] = ["::Future", "::Stream", "::Body"];
/// Types that dumps ask for by name.
const NAMED: [&str; 1] = ["core::panic::location::Location"];

/// What is written.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// Types in the order of their ids in the file.
    pub(super) types: Vec<(TypeId, Arc<Type>)>,
    pub(super) ids: HashMap<TypeId, u32>,
    pub(super) tasks: Vec<(u64, Arc<[TaskType]>)>,
    pub(super) vtables: Vec<(u64, TypeId)>,
}

/// Collects.
///
/// # Errors
/// `Malformed` for damaged debug information.
pub(super) fn collect(layouts: &mut Dwarf) -> Result<Collected> {
    let mut collected = Collected::default();
    let mut roots = Vec::new();
    for &poll in layouts.task_polls().iter() {
        let tasks = layouts.task(poll);
        for task in tasks.iter() {
            roots.extend([task.future, task.scheduler]);
            roots.extend(task.cell);
        }
        collected.tasks.push((poll, tasks));
    }
    roots.extend(layouts.context().map(|(_, of)| of));
    roots.extend(layouts.all("tokio::")?);
    roots.extend(NAMED.iter().filter_map(|name| layouts.find(name)));

    let vtables = layouts.vtables();
    let behind = vtables.iter().map(|&(_, of)| of);
    let graph = Graph::build(layouts, roots.iter().copied().chain(behind))?;
    // Of all that is `dyn`, a walk goes on into what polls and what owns
    // something that polls: the body of a response is no future, but the
    // stream that it is made of.
    let polling = graph.polling(layouts);
    collected.vtables = vtables;
    collected.vtables.retain(|(_, of)| polling.contains(of));
    roots.extend(collected.vtables.iter().map(|&(_, of)| of));
    let matters = graph.matters(layouts);
    let mut queue: VecDeque<TypeId> = roots.into();
    let mut seen = HashSet::new();
    while let Some(id) = queue.pop_front() {
        if !seen.insert(id) {
            continue;
        }
        let node = &graph.nodes[&id];
        collected.ids.insert(id, collected.types.len() as u32);
        collected.types.push((id, Arc::clone(&node.ty)));
        queue.extend(&node.parts);
        let leaf = |id: &TypeId| matches!(graph.nodes[id].ty.shape, Shape::Opaque);
        queue.extend(node.far.iter().filter(|&id| matters.contains(id) || leaf(id)));
    }
    Ok(collected)
}

/// A type with what it leads to.
struct Node {
    ty: Arc<Type>,
    /// In its value.
    parts: Vec<TypeId>,
    /// Behind pointers, or an argument of its name: containers reach their
    /// elements by arithmetic, with no pointer of that type.
    far: Vec<TypeId>,
}

struct Graph {
    nodes: HashMap<TypeId, Node>,
}

impl Graph {
    fn build(layouts: &mut Dwarf, roots: impl Iterator<Item = TypeId>) -> Result<Self> {
        let mut nodes = HashMap::new();
        let mut queue: Vec<TypeId> = roots.collect();
        while let Some(id) = queue.pop() {
            if nodes.contains_key(&id) {
                continue;
            }
            let ty = layouts.ty(id)?;
            let (mut parts, mut far) = (Vec::new(), Vec::new());
            match &ty.shape {
                Shape::Struct(members) | Shape::Union(members) => {
                    parts.extend(members.iter().map(|member| member.ty));
                }
                Shape::Enum(variants) => {
                    parts.extend(variants.list.iter().map(|variant| variant.payload));
                }
                Shape::Array { of, .. } => parts.push(*of),
                Shape::Pointer(to) => far.extend(*to),
                Shape::Opaque => {}
            }
            far.extend(arguments(&ty.name).into_iter().filter_map(|name| layouts.find(name)));
            queue.extend(parts.iter().chain(&far));
            nodes.insert(id, Node { ty, parts, far });
        }
        Ok(Self { nodes })
    }

    /// Types that matter.
    fn matters(&self, layouts: &mut Dwarf) -> HashSet<TypeId> {
        let matters = |id: TypeId, ty: &Type| is_read(ty) || layouts.polled(id).is_some();
        self.leading_to(matters, |node| node.parts.iter().chain(&node.far))
    }

    /// Types whose values poll or own something that polls.
    fn polling(&self, layouts: &mut Dwarf) -> HashSet<TypeId> {
        let polls = |id: TypeId, ty: &Type| is_boxed(ty) || layouts.polled(id).is_some();
        self.leading_to(polls, |node| {
            let owns = node.ty.name.starts_with(BOX);
            node.parts.iter().chain(node.far.iter().filter(move |_| owns))
        })
    }

    /// Types that are wanted, and those that lead to them.
    fn leading_to<'g, Leads: Iterator<Item = &'g TypeId>>(
        &'g self,
        mut is_wanted: impl FnMut(TypeId, &Type) -> bool,
        leads: impl Fn(&'g Node) -> Leads,
    ) -> HashSet<TypeId> {
        let mut users: HashMap<TypeId, Vec<TypeId>> = HashMap::new();
        let mut queue = Vec::new();
        for (&id, node) in &self.nodes {
            for &of in leads(node) {
                users.entry(of).or_default().push(id);
            }
            if is_wanted(id, &node.ty) {
                queue.push(id);
            }
        }
        let mut found = HashSet::new();
        while let Some(id) = queue.pop() {
            if found.insert(id) {
                queue.extend(users.get(&id).into_iter().flatten());
            }
        }
        found
    }
}

const BOX: &str = "alloc::boxed::Box<";

/// Whether it is a box with a future inside that only its vtable tells.
fn is_boxed(ty: &Type) -> bool {
    ty.name.strip_prefix(BOX).is_some_and(|inner| {
        inner.contains("dyn ") && DYN.iter().any(|known| inner.contains(known))
    })
}

/// Whether a type's insides may be read for their own sake.
fn is_read(ty: &Type) -> bool {
    if READ.iter().any(|start| ty.name.starts_with(start)) {
        return true;
    }
    // A pointer with a vtable may lead to anything.
    matches!(&ty.shape, Shape::Struct(members)
        if members.iter().any(|member| &*member.name == "vtable"))
}

/// The arguments of a generic type's name, and what a tuple is made of.
fn arguments(name: &str) -> Vec<&str> {
    let inner = match name.strip_suffix('>').and_then(|rest| rest.split_once('<')) {
        // `<X as Trait>::..` and the like are no generics.
        Some((before, inner)) if !before.is_empty() => inner,
        _ => match name.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
            Some(inner) => inner,
            None => return Vec::new(),
        },
    };
    super::super::polled::split_arguments(inner)
}
