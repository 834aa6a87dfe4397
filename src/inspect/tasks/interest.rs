//! What values of a type may contain, so that most of a program's types are
//! never looked into.

use super::coroutine::is_coroutine;
use super::hash::NumberMap;
use super::holds;
use super::leaves;
use super::plan::{Plans, followed};
use super::tokio;
use crate::debuginfo::layout::{Shape, TypeId};

/// Something that a polled value can wait on.
pub const POLL: u8 = 1;
/// A future that may have begun and be kept without being polled.
pub const KEEP: u8 = 2;
/// A guard, a permit, or the end of a channel.
pub const HOLD: u8 = 4;
/// Of what is behind a `dyn`, before it is known.
pub const ANY: u8 = POLL | KEEP | HOLD;

/// Types explored to find out what one of them may contain. Beyond it
/// everything counts as possible, and the walk has bounds of its own.
const EXPLORED: usize = 50_000;

impl Plans<'_> {
    /// What a value of a type may contain: exact, for all types at once that
    /// can be reached from it.
    pub fn interest(&mut self, id: TypeId) -> u8 {
        if let Some(&mask) = self.masks.get(&id) {
            return mask;
        }
        let mut explored: Vec<(TypeId, u8, Vec<TypeId>)> = Vec::new();
        let mut index = NumberMap::default();
        index.insert(id, 0_usize);
        let mut next = vec![id];
        while let Some(id) = next.pop() {
            if explored.len() > EXPLORED {
                return ANY;
            }
            let (own, children) = self.own_interest(id);
            index.insert(id, explored.len());
            for &child in &children {
                if !self.masks.contains_key(&child) && !index.contains_key(&child) {
                    index.insert(child, usize::MAX);
                    next.push(child);
                }
            }
            explored.push((id, own, children));
        }
        // Whoever contains a type hears what it contains, until nothing is new.
        let mut parents: Vec<Vec<usize>> = vec![Vec::new(); explored.len()];
        let mut news: Vec<usize> = (0..explored.len()).collect();
        for (at, (_, own, children)) in explored.iter_mut().enumerate() {
            for &child in children.iter() {
                match self.masks.get(&child) {
                    Some(mask) => *own |= mask,
                    None => {
                        if let Some(list) = index.get(&child).and_then(|&to| parents.get_mut(to)) {
                            list.push(at);
                        }
                    }
                }
            }
        }
        while let Some(at) = news.pop() {
            let mask = explored[at].1;
            for &parent in &parents[at] {
                if explored[parent].1 | mask != explored[parent].1 {
                    explored[parent].1 |= mask;
                    news.push(parent);
                }
            }
        }
        for (id, mask, _) in &explored {
            self.masks.insert(*id, *mask);
        }
        explored.first().map_or(0, |(_, mask, _)| *mask)
    }

    /// What a type is by itself, and the types whose values it leads to.
    fn own_interest(&mut self, id: TypeId) -> (u8, Vec<TypeId>) {
        let Some(ty) = self.types.get(id) else { return (0, Vec::new()) };
        let name = &*ty.name;
        if let Some(mask) = leaves::interest(name).or_else(|| holds::interest(name)) {
            return (mask, Vec::new());
        }
        let mut own = if self.types.polled(id).is_some() { POLL } else { 0 };
        if name == tokio::LOCAL_SET
            || name.starts_with("futures_util::stream::futures_unordered::FuturesUnordered<")
        {
            own |= POLL | KEEP;
        }
        let mut children = Vec::new();
        match &ty.shape {
            Shape::Struct(members) => {
                let fat = members.iter().any(|member| &*member.name == "vtable");
                if fat && members.len() == 2 {
                    let ours = followed(name).is_some() && !is_never_future(name);
                    return (if ours { ANY } else { 0 }, Vec::new());
                }
                if name.starts_with("alloc::vec::Vec<") {
                    children.extend(self.types.first_argument(name));
                } else if let Some(data) = members
                    .iter()
                    .find(|member| &*member.name == "data_ptr" && followed(name).is_some())
                {
                    children.extend(self.types.target(data.ty));
                } else {
                    children.extend(members.iter().map(|member| member.ty));
                }
            }
            Shape::Enum(variants) => {
                if is_coroutine(variants) {
                    own |= POLL | KEEP;
                }
                children.extend(variants.list.iter().map(|variant| variant.payload));
            }
            Shape::Pointer(Some(to)) if followed(name).is_some() => children.push(*to),
            Shape::Array { of, count: 1.. } => children.push(*of),
            _ => {}
        }
        (own, children)
    }
}

/// `dyn`s that are everywhere and never hold a future.
fn is_never_future(name: &str) -> bool {
    ["core::error::Error", "core::any::Any", "core::fmt::", "std::io::", "tracing"]
        .iter()
        .any(|part| name.split_once("dyn ").is_some_and(|(_, rest)| rest.starts_with(part)))
}
