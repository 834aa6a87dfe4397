//! The answers of [`Layouts`], from the tables and from what was parsed.

use std::sync::Arc;

use super::Dwarf;
use crate::debuginfo::layout::hash::Hash;
use crate::debuginfo::layout::{Detail, Layouts, Polled, TaskType, Type, TypeId};
use crate::error::Result;

/// Types told behind one vtable: it is merged for all that are alike, and a
/// person reads a few.
const MERGED: usize = 16;

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
        let found: Vec<_> = found.take(MERGED).map(|known| known.of).collect();
        if let [only] = found[..] {
            if let Some(&known) = self.by_offset.get(&only) {
                return vec![known];
            }
            return self.safely(|layouts| layouts.intern(only, 0)).into_iter().collect();
        }
        let mut types: Vec<(TypeId, Arc<str>)> = Vec::with_capacity(found.len());
        for at in found {
            let Ok(id) = self.safely(|layouts| layouts.intern(at, 0)) else { continue };
            let Ok(ty) = self.ty(id) else { continue };
            // A type may be described once in each unit.
            if types.iter().all(|(_, name)| *name != ty.name) {
                types.push((id, ty.name.clone()));
            }
        }
        types.into_iter().map(|(id, _)| id).collect()
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
