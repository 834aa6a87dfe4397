//! Writes saved layouts.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::{Detail, Dwarf, Layouts as _, Shape, Type, TypeId};
use super::Saved;
use super::bytes::put;
use super::collect::{Collected, collect};
use crate::error::Result;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Types of tasks.
    pub tasks: usize,
    /// Types in all.
    pub types: usize,
    /// Futures and streams among them.
    pub futures: usize,
}

/// A program's layouts in memory, for debug information that takes up too much
/// of it.
///
/// # Errors
/// `Malformed` for damaged debug information.
pub fn compact(layouts: &mut Dwarf, key: &str) -> Result<Saved> {
    Saved::from_body(body(layouts)?.0, key.to_owned())
}

/// The inflated part of a file.
///
/// # Errors
/// `Malformed` for damaged debug information.
pub(super) fn body(layouts: &mut Dwarf) -> Result<(Vec<u8>, Written)> {
    let collected = collect(layouts)?;
    let mut writer = Writer { words: HashMap::new(), list: Vec::new(), collected: &collected };
    let (mut records, mut lengths) = (Vec::new(), Vec::new());
    for (_, ty) in &collected.types {
        let from = records.len();
        writer.record(&mut records, ty);
        put(&mut lengths, (records.len() - from) as u128);
    }
    let mut rest = Vec::new();
    let tasks = writer.tasks(&mut rest);
    writer.vtables(&mut rest);
    let futures = writer.polled(&mut rest, layouts);
    writer.context(&mut rest, layouts);

    let mut body = vec![match layouts.detail() {
        Detail::Nothing => 0,
        Detail::Names => 1,
        Detail::Full => 2,
    }];
    put(&mut body, writer.list.len() as u128);
    for word in &writer.list {
        put(&mut body, word.len() as u128);
        body.extend_from_slice(word.as_bytes());
    }
    put(&mut body, collected.types.len() as u128);
    body.extend_from_slice(&lengths);
    body.extend_from_slice(&records);
    body.extend_from_slice(&rest);
    let written = Written { tasks, types: collected.types.len(), futures };
    Ok((body, written))
}

struct Writer<'a> {
    words: HashMap<Arc<str>, u32>,
    list: Vec<Arc<str>>,
    collected: &'a Collected,
}

impl Writer<'_> {
    /// A text as a list of words.
    fn text(&mut self, into: &mut Vec<u8>, text: &str) {
        let words = words(text);
        put(into, words.len() as u128);
        for word in words {
            let number = match self.words.get(word) {
                Some(&known) => known,
                None => {
                    let shared: Arc<str> = word.into();
                    let number = self.list.len() as u32;
                    self.list.push(Arc::clone(&shared));
                    self.words.insert(shared, number);
                    number
                }
            };
            put(into, u128::from(number));
        }
    }

    /// A type's number in the file, plus one; 0 for one that was cut.
    fn id(&self, id: TypeId) -> u128 {
        self.collected.ids.get(&id).map_or(0, |&number| u128::from(number) + 1)
    }

    fn record(&mut self, into: &mut Vec<u8>, ty: &Type) {
        put(into, u128::from(ty.size));
        self.text(into, &ty.name);
        match &ty.shape {
            Shape::Opaque => into.push(0),
            Shape::Struct(members) | Shape::Union(members) => {
                into.push(if matches!(ty.shape, Shape::Struct(_)) { 1 } else { 2 });
                put(into, members.len() as u128);
                for member in members {
                    self.text(into, &member.name);
                    put(into, u128::from(member.offset));
                    put(into, self.id(member.ty));
                }
            }
            Shape::Pointer(to) => {
                into.push(3);
                put(into, to.map_or(0, |to| self.id(to)));
            }
            Shape::Array { of, count } => {
                into.push(4);
                put(into, self.id(*of));
                put(into, u128::from(*count));
            }
            Shape::Enum(variants) => {
                into.push(5);
                match variants.tag {
                    Some(tag) => {
                        into.push(tag.size);
                        put(into, u128::from(tag.offset));
                    }
                    None => into.push(0),
                }
                put(into, variants.list.len() as u128);
                for variant in &variants.list {
                    self.text(into, &variant.name);
                    put(into, variant.values.len() as u128);
                    for &(low, high) in &variant.values {
                        put(into, low);
                        put(into, high.wrapping_sub(low));
                    }
                    put(into, self.id(variant.payload));
                    put(into, u128::from(variant.offset));
                    self.place(into, variant.place.as_ref());
                }
            }
        }
    }

    /// Line, or 0 for no place; then the file.
    fn place(&mut self, into: &mut Vec<u8>, place: Option<&super::super::Place>) {
        put(into, place.map_or(0, |place| u128::from(place.line)));
        if let Some(place) = place.filter(|place| place.line > 0) {
            self.text(into, &place.file);
        }
    }

    fn tasks(&mut self, into: &mut Vec<u8>) -> usize {
        let tasks = &self.collected.tasks;
        put(into, tasks.len() as u128);
        let mut before = 0;
        for (address, types) in tasks {
            put(into, u128::from(address - before));
            before = *address;
            put(into, types.len() as u128);
            for task in types.iter() {
                put(into, self.id(task.future));
                put(into, self.id(task.scheduler));
                put(into, task.cell.map_or(0, |cell| self.id(cell)));
            }
        }
        tasks.iter().map(|(_, types)| types.len()).sum()
    }

    fn vtables(&self, into: &mut Vec<u8>) {
        put(into, self.collected.vtables.len() as u128);
        let mut before = 0;
        for &(address, of) in &self.collected.vtables {
            put(into, u128::from(address - before));
            before = address;
            put(into, self.id(of));
        }
    }

    fn polled(&mut self, into: &mut Vec<u8>, layouts: &mut Dwarf) -> usize {
        let mut known = Vec::new();
        for &(id, _) in &self.collected.types {
            known.extend(layouts.polled(id).map(|polled| (id, polled)));
        }
        put(into, known.len() as u128);
        for (id, polled) in &known {
            put(into, self.id(*id));
            self.text(into, &polled.function);
            into.push(u8::from(polled.coroutine));
            self.place(into, polled.place.as_ref());
        }
        known.len()
    }

    fn context(&self, into: &mut Vec<u8>, layouts: &mut Dwarf) {
        match layouts.context() {
            Some((offset, of)) => {
                into.push(1);
                // Zigzag: negative ones are as short as positive ones.
                let offset = ((offset << 1) ^ (offset >> 63)) as u64;
                put(into, u128::from(offset));
                put(into, self.id(of));
            }
            None => into.push(0),
        }
    }
}

/// Splits a name where other names begin or end in it.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = 0;
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        // Brackets, commas and the space behind them stay with the word
        // before: `Option<` and `, ` are words of their own that way.
        let next = bytes.get(at + 1).copied().unwrap_or(0);
        let ends = match byte {
            b'<' | b'(' | b'[' => true,
            b':' => next != b':',
            b'>' | b')' | b']' | b',' | b' ' => is_name(next),
            _ => is_name(byte) && matches!(next, b'>' | b',' | b')' | b']' | b' '),
        };
        if ends {
            words.push(&text[start..=at]);
            start = at + 1;
        }
    }
    if start < text.len() {
        words.push(&text[start..]);
    }
    words
}

/// Bytes of names; all of a character outside ASCII, so that none is split.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'_' | b'{' | b'}' | b'#' | b'&' | b'*')
        || byte >= 0x80
}
