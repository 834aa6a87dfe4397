//! What one pass over the debug information keeps: a few bytes for each
//! type, function and vtable of interest, sorted for search.

use std::collections::HashMap;

use super::hash::Hash;

/// A path of namespaces, by its place in [`Paths`]. 0 is the empty one.
pub(super) type PathId = u32;

/// Paths of namespaces, each told once.
#[derive(Debug)]
pub(super) struct Paths {
    /// Parent and the text's place in `text`.
    list: Vec<(PathId, u32, u32)>,
    hashes: Vec<Hash>,
    text: String,
    by_hash: HashMap<u64, PathId>,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            list: vec![(0, 0, 0)],
            hashes: vec![Hash::default()],
            text: String::new(),
            by_hash: HashMap::new(),
        }
    }
}

impl Paths {
    /// A path's child.
    pub(super) fn child(&mut self, parent: PathId, name: &str) -> PathId {
        let hash = self.hash(parent).with(name.as_bytes()).with(b"::");
        *self.by_hash.entry(hash.value()).or_insert_with(|| {
            let start = self.text.len() as u32;
            self.text.push_str(name);
            self.list.push((parent, start, self.text.len() as u32));
            self.hashes.push(hash);
            self.list.len() as u32 - 1
        })
    }

    /// Hash of a path with its final `::`; to be gone on with a name.
    pub(super) fn hash(&self, path: PathId) -> Hash {
        self.hashes.get(path as usize).copied().unwrap_or_default()
    }

    /// Whether a path is the one written `a::b::`.
    pub(super) fn is(&self, path: PathId, text: &str) -> bool {
        self.hash(path) == Hash::of(text)
    }

    /// Writes a path with its final `::`.
    pub(super) fn write(&self, path: PathId, into: &mut String) {
        let mut names = Vec::new();
        let mut at = path;
        // A parent is always older than its child: this ends.
        while at != 0 {
            let Some(&(parent, start, end)) = self.list.get(at as usize) else { break };
            names.push(&self.text[start as usize..end as usize]);
            at = parent;
        }
        for name in names.iter().rev() {
            into.push_str(name);
            into.push_str("::");
        }
    }

    /// Takes another table's paths in; answers what each of them is here.
    pub(super) fn absorb(&mut self, other: &Self) -> Vec<PathId> {
        let mut here = Vec::with_capacity(other.list.len());
        here.push(0);
        for &(parent, start, end) in &other.list[1..] {
            let parent = here[parent as usize];
            here.push(self.child(parent, &other.text[start as usize..end as usize]));
        }
        here
    }

    /// Length of all names, in bytes.
    pub(super) fn text_bytes(&self) -> usize {
        self.text.len()
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.list.len() * 12 + self.hashes.len() * 8 + self.text.len() + self.by_hash.len() * 16
    }
}

/// A `poll` function of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskPoll {
    pub(super) address: u64,
    /// Global offset of its DIE, whose template parameters name the types.
    pub(super) function: u32,
}

/// A vtable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Vtable {
    pub(super) address: u64,
    /// Global offset of the type behind it.
    pub(super) of: u32,
}

/// Stands for the function of a type of which only is known that it is
/// polled. Sorts behind all others.
pub(super) const NO_FUNCTION: u32 = u32::MAX;

/// A function that polls a type, by the hash of the type's whole name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PollOf {
    pub(super) of: u64,
    /// Global offset of the function's DIE.
    pub(super) function: u32,
}

/// A reference into another unit, to be followed after the pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Far {
    /// Global offset of what it leads to.
    pub(super) to: u32,
    pub(super) from: From,
}

/// What refers to another unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum From {
    /// The first parameter of a function that polls, at a global offset.
    Receiver(u32),
    /// A vtable at an address.
    Vtable(u64),
}

/// A thread-local variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ThreadLocal {
    /// In the program's thread-local segment.
    pub(super) offset: u64,
    /// Global offset of its type.
    pub(super) of: u32,
}

/// The result of the pass.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) paths: Paths,
    /// From which global offset on types are in which path.
    pub(super) runs: Vec<(u32, PathId)>,
    /// Types with a definition by the hash of their whole names: one of each.
    pub(super) types: Vec<(u64, u32)>,
    pub(super) task_polls: Vec<TaskPoll>,
    pub(super) vtables: Vec<Vtable>,
    pub(super) polls: Vec<PollOf>,
    pub(super) contexts: Vec<ThreadLocal>,
    pub(super) far: Vec<Far>,
    /// Coroutines among the types.
    pub(super) coroutines: usize,
}

impl Tables {
    /// Takes what another thread found.
    pub(super) fn absorb(&mut self, other: Self) {
        let here = self.paths.absorb(&other.paths);
        self.runs.extend(other.runs.iter().map(|&(at, path)| (at, here[path as usize])));
        self.types.extend(other.types);
        self.task_polls.extend(other.task_polls);
        self.vtables.extend(other.vtables);
        self.polls.extend(other.polls);
        self.contexts.extend(other.contexts);
        self.far.extend(other.far);
        self.coroutines += other.coroutines;
    }

    /// Sorts for search; of each type name the first definition stays.
    pub(super) fn seal(&mut self) {
        self.runs.sort_unstable();
        self.types.sort_unstable();
        self.types.dedup_by_key(|entry| entry.0);
        self.task_polls.sort_unstable();
        self.task_polls.dedup();
        self.vtables.sort_unstable();
        self.vtables.dedup();
        self.polls.sort_unstable();
        self.polls.dedup_by_key(|entry| entry.of);
        self.contexts.sort_unstable();
        self.contexts.dedup();
        self.far = Vec::new();
        self.runs.shrink_to_fit();
        self.types.shrink_to_fit();
        self.vtables.shrink_to_fit();
        self.polls.shrink_to_fit();
    }

    /// A type by the hash of its whole name.
    pub(super) fn find(&self, name: Hash) -> Option<u32> {
        let at = self.types.binary_search_by_key(&name.value(), |entry| entry.0).ok()?;
        Some(self.types[at].1)
    }

    /// The path that a type's DIE is in.
    pub(super) fn path_of(&self, at: u32) -> PathId {
        let after = self.runs.partition_point(|run| run.0 <= at);
        after.checked_sub(1).map_or(0, |index| self.runs[index].1)
    }

    /// The function that polls a type, or [`NO_FUNCTION`].
    pub(super) fn poll_of(&self, name: Hash) -> Option<u32> {
        let at = self.polls.binary_search_by_key(&name.value(), |entry| entry.of).ok()?;
        Some(self.polls[at].function)
    }

    /// Memory taken, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.paths.bytes()
            + self.runs.capacity() * 8
            + self.types.capacity() * 16
            + self.task_polls.capacity() * 16
            + self.vtables.capacity() * 16
            + self.polls.capacity() * 16
    }
}
