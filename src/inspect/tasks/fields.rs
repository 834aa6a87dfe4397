//! Fields found by type and member name, so that no layout is written down.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::hash::NumberMap;
use crate::debuginfo::layout::{Layouts, Member, Polled, Shape, Type, TypeId, Variants};
use crate::inspect::image::Cached;

/// Types looked at in one search; tokio's handles have some hundreds.
const SEARCHED: usize = 4_000;

/// The program's types, each asked for once.
pub struct Types<'a> {
    pub layouts: &'a mut dyn Layouts,
    known: NumberMap<TypeId, Option<Arc<Type>>>,
}

impl<'a> Types<'a> {
    pub fn new(layouts: &'a mut dyn Layouts) -> Self {
        Self { layouts, known: NumberMap::default() }
    }

    /// A type, or none if its debug information is damaged.
    pub fn get(&mut self, id: TypeId) -> Option<Arc<Type>> {
        self.known.entry(id).or_insert_with(|| self.layouts.ty(id).ok()).clone()
    }

    pub fn polled(&mut self, id: TypeId) -> Option<Arc<Polled>> {
        self.layouts.polled(id)
    }

    /// A field of a struct by its name.
    pub fn member(&mut self, id: TypeId, name: &str) -> Option<Member> {
        match &self.get(id)?.shape {
            Shape::Struct(members) => members.iter().find(|member| &*member.name == name).cloned(),
            _ => None,
        }
    }

    /// The parts of a value and where they are: fields, and the payloads of
    /// all variants. Unions are left out: nothing tells what is in them.
    pub fn parts(&mut self, id: TypeId) -> Vec<(u64, TypeId)> {
        let Some(ty) = self.get(id) else { return Vec::new() };
        match &ty.shape {
            Shape::Struct(members) => members.iter().map(|part| (part.offset, part.ty)).collect(),
            Shape::Enum(variants) => {
                variants.list.iter().map(|variant| (variant.offset, variant.payload)).collect()
            }
            Shape::Array { of, count: 1.. } => vec![(0, *of)],
            _ => Vec::new(),
        }
    }

    /// What a thin pointer points at.
    pub fn target(&mut self, id: TypeId) -> Option<TypeId> {
        match self.get(id)?.shape {
            Shape::Pointer(target) => target,
            _ => None,
        }
    }

    /// The nearest part of a value whose type's name begins with one of
    /// `names`, through at most `pointers` pointers.
    pub fn route(&mut self, from: TypeId, names: &[&str], pointers: usize) -> Option<Route> {
        let mut seen = HashSet::from([from]);
        let mut next = VecDeque::from([(from, vec![0_u64])]);
        while let Some((id, steps)) = next.pop_front() {
            let ty = self.get(id)?;
            if names.iter().any(|name| ty.name.starts_with(name)) {
                return Some(Route { steps: steps.into(), ty: id });
            }
            if seen.len() > SEARCHED {
                return None;
            }
            for (offset, part) in self.parts(id) {
                if seen.insert(part) {
                    let mut steps = steps.clone();
                    let last = steps.last_mut()?;
                    *last = last.checked_add(offset)?;
                    next.push_back((part, steps));
                }
            }
            if let Shape::Pointer(Some(target)) = ty.shape
                && steps.len() <= pointers
                && seen.insert(target)
            {
                let steps = steps.into_iter().chain([0]).collect();
                next.push_back((target, steps));
            }
        }
        None
    }

    /// As [`Types::route`], by value only.
    pub fn within(&mut self, from: TypeId, name: &str) -> Option<(u64, TypeId)> {
        let route = self.route(from, &[name], 0)?;
        Some((route.steps[0], route.ty))
    }

    /// Follows names of fields from a type; where a name is no field of it,
    /// its only part that holds anything is looked into (`UnsafeCell`,
    /// `Option`, `NonNull` and the like).
    pub fn path(&mut self, from: TypeId, names: &[&str]) -> Option<(u64, TypeId)> {
        let (mut offset, mut id) = (0_u64, from);
        for name in names {
            let member = self.through_wrappers(&mut offset, id, name)?;
            offset = offset.checked_add(member.offset)?;
            id = member.ty;
        }
        Some((offset, id))
    }

    fn through_wrappers(&mut self, offset: &mut u64, id: TypeId, name: &str) -> Option<Member> {
        let mut id = id;
        for _ in 0..8 {
            if let Some(member) = self.member(id, name) {
                return Some(member);
            }
            let (at, only) = self.only_part(id)?;
            *offset = offset.checked_add(at)?;
            id = only;
        }
        None
    }

    /// The only part of a value that has a size.
    fn only_part(&mut self, id: TypeId) -> Option<(u64, TypeId)> {
        let mut found = None;
        for (offset, part) in self.parts(id) {
            let empty = {
                let part = self.get(part)?;
                part.size == 0
                    || matches!(&part.shape, Shape::Struct(members) if members.is_empty())
            };
            if !empty && found.replace((offset, part)).is_some() {
                return None;
            }
        }
        found
    }

    /// Unwraps to what has no single part: a number, a pointer, a struct.
    pub fn unwrapped(&mut self, id: TypeId) -> Option<(u64, TypeId)> {
        let (mut offset, mut id) = (0_u64, id);
        for _ in 0..12 {
            let Some((at, only)) = self.only_part(id) else { break };
            offset = offset.checked_add(at)?;
            id = only;
        }
        Some((offset, id))
    }

    /// What a single pointer within a value points at: `NonNull<T>`,
    /// `Option<NonNull<T>>`, `AtomicPtr<T>`.
    pub fn pointee(&mut self, id: TypeId) -> Option<TypeId> {
        let (_, id) = self.unwrapped(id)?;
        self.target(id)
    }

    /// The type of a generic's first argument, by its name.
    pub fn first_argument(&mut self, name: &str) -> Option<TypeId> {
        let arguments = name.strip_suffix('>')?.split_once('<')?.1;
        let mut open = 0_u32;
        let mut before = ' ';
        let end = arguments.char_indices().find(|&(_, letter)| {
            match letter {
                '<' | '(' | '[' | '{' => open += 1,
                '>' if before == '-' => {}
                '>' | ')' | ']' | '}' => open = open.saturating_sub(1),
                _ => {}
            }
            before = letter;
            letter == ',' && open == 0
        });
        let first = end.map_or(arguments, |(end, _)| &arguments[..end]);
        self.layouts.find(first.trim())
    }
}

/// A way from a value to something it owns or refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Added to the address; between two steps the word there is the next address.
    pub steps: Box<[u64]>,
    /// What is there.
    pub ty: TypeId,
}

impl Route {
    /// Follows it. `None`: a pointer on the way is null or leads nowhere.
    pub fn follow(&self, memory: &mut Cached<'_>, from: u64) -> Option<u64> {
        let (first, rest) = self.steps.split_first()?;
        let mut at = from.checked_add(*first)?;
        for step in rest {
            at = match memory.word(at) {
                Ok(0) | Err(_) => return None,
                Ok(target) => target.checked_add(*step)?,
            };
        }
        Some(at)
    }

    /// Goes on from where this one ends.
    pub fn then(mut self, offset: u64, ty: TypeId) -> Self {
        if let Some(last) = self.steps.last_mut() {
            *last = last.wrapping_add(offset);
        }
        self.ty = ty;
        self
    }
}

/// Which variant of an enum is in memory, as an index into its list.
pub fn active(memory: &mut Cached<'_>, at: u64, variants: &Variants) -> Option<usize> {
    let Some(tag) = variants.tag else { return (variants.list.len() == 1).then_some(0) };
    let mut bytes = [0; 16];
    let size = usize::from(tag.size).min(bytes.len());
    memory.read(at.checked_add(tag.offset)?, &mut bytes[..size]).ok()?;
    let value = u128::from_le_bytes(bytes);
    let mut other = None;
    for (index, variant) in variants.list.iter().enumerate() {
        if variant.values.is_empty() {
            other = Some(index);
        }
        if variant.values.iter().any(|&(low, high)| (low..=high).contains(&value)) {
            return Some(index);
        }
    }
    other
}
