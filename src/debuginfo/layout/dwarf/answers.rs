//! The answers of [`Layouts`], from the tables and from what was parsed.

use std::sync::Arc;

use super::Dwarf;
use crate::debuginfo::layout::hash::Hash;
use crate::debuginfo::layout::{Detail, Layouts, MERGED, Polled, TaskType, Type, TypeId};
use crate::error::Result;

/// Descriptions of types looked at behind one vtable: each unit may have its own
/// of each of them.
const ROWS: usize = 4_096;

impl Layouts for Dwarf {
    fn detail(&self) -> Detail {
        match (self.tables.coroutines > 0, self.task_polls.is_empty()) {
            // A program may be compiled with full debug information and tokio
            // without: its types are known then, and nothing leads to them.
            (true, false) => Detail::Full,
            (false, false) => Detail::Names,
            (_, true) => Detail::Nothing,
        }
    }

    fn find(&mut self, name: &str) -> Option<TypeId> {
        let at = self.tables.find(Hash::of(name))?;
        if let Some(known) = self.by_offset.get(&at) {
            return Some(*known);
        }
        self.safely(|layouts| layouts.intern(at, 0)).ok()
    }

    fn ty(&mut self, id: TypeId) -> Result<Arc<Type>> {
        let known = self.types.get(id.0 as usize);
        if let Some(parsed) = known.and_then(|known| known.parsed.as_ref()) {
            return Ok(Arc::clone(parsed));
        }
        self.safely(|layouts| layouts.parse(id))
    }

    fn task_polls(&mut self) -> Arc<[u64]> {
        Arc::clone(&self.task_polls)
    }

    fn task(&mut self, poll: u64) -> Arc<[TaskType]> {
        if let Some(known) = self.tasks.get(&poll) {
            return Arc::clone(known);
        }
        let from = self.tables.task_polls.partition_point(|known| known.address < poll);
        let functions: Vec<u32> = self.tables.task_polls[from..]
            .iter()
            .take_while(|known| known.address == poll)
            .map(|known| known.function)
            .collect();
        let mut types: Vec<TaskType> = Vec::new();
        for function in functions {
            if let Ok(Some(task)) = self.safely(|layouts| layouts.task_type(function))
                && !types.contains(&task)
            {
                types.push(task);
            }
        }
        if let Some(named) = self.named.get(&poll).cloned()
            && let Ok(future) = self.safely(|layouts| layouts.named(&named.future))
            && let Ok(scheduler) = self.safely(|layouts| layouts.named(&named.scheduler))
        {
            types.push(TaskType { future, scheduler, cell: None });
        }
        let types: Arc<[TaskType]> = types.into();
        // Only what is there is remembered: a wild address costs nothing.
        if !types.is_empty() {
            self.tasks.insert(poll, Arc::clone(&types));
        }
        types
    }

    fn behind(&mut self, vtable: u64) -> Vec<TypeId> {
        let at = self.tables.vtables.partition_point(|known| known.address < vtable);
        let found = self.tables.vtables[at..].iter().take_while(|known| known.address == vtable);
        let found: Vec<_> = found.take(ROWS).map(|known| known.of).collect();
        if let [only] = found[..] {
            if let Some(&known) = self.by_offset.get(&only) {
                return vec![known];
            }
            return self.safely(|layouts| layouts.intern(only, 0)).into_iter().collect();
        }
        distinct(found.into_iter().filter_map(|at| {
            let id = self.safely(|layouts| layouts.intern(at, 0)).ok()?;
            Some((id, self.ty(id).ok()?.name.clone()))
        }))
    }

    fn polled(&mut self, id: TypeId) -> Option<Arc<Polled>> {
        if let Some(known) = self.polled.get(&id) {
            return known.clone();
        }
        let found = self.safely(|layouts| layouts.poller(id)).ok().flatten().map(Arc::new);
        if (id.0 as usize) < self.types.len() {
            self.polled.insert(id, found.clone());
        }
        found
    }

    fn context(&mut self) -> Option<(i64, TypeId)> {
        let segment = self.segment?;
        let found = *self.tables.contexts.first()?;
        let offset = segment.offset(found.offset)?;
        let of = self.safely(|layouts| layouts.intern(found.of, 0)).ok()?;
        Some((offset, of))
    }

    fn release(&mut self) {
        self.store.release();
    }
}

/// The first of each name, as [`Layouts::behind`] tells them.
fn distinct(types: impl Iterator<Item = (TypeId, Arc<str>)>) -> Vec<TypeId> {
    let mut kept: Vec<(TypeId, Arc<str>)> = Vec::new();
    for (id, name) in types {
        if kept.iter().all(|(_, other)| *other != name) {
            kept.push((id, name));
        }
        if kept.len() > MERGED {
            break;
        }
    }
    kept.into_iter().map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_described_in_every_unit_hides_no_other() {
        let often = (0..100).map(|id| (TypeId(id), "app::Often".into()));
        let types: Vec<_> = often.chain([(TypeId(100), "app::Rare".into())]).collect();
        assert_eq!(distinct(types.into_iter()), [TypeId(0), TypeId(100)]);
        let many = (0..100).map(|id| (TypeId(id), format!("app::T{id}").into()));
        assert_eq!(distinct(many).len(), MERGED + 1, "one stands for the rest");
    }
}
