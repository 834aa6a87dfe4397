//! What a type's entry in the debug information says it is made of.

use std::sync::Arc;

use addr2line::gimli;

use super::Dwarf;
use crate::debuginfo::layout::die::{self, Die};
use crate::debuginfo::layout::store::Open;
use crate::debuginfo::layout::{Member, Shape, Tag, Variant, Variants};
use crate::error::{Error, ErrorKind, Result};

impl Dwarf {
    /// The shape of the type at `at`.
    pub(super) fn shape(&mut self, at: u32, name: &str, size: u64) -> Result<Shape> {
        let store = Arc::clone(&self.store);
        let (unit, open) = store.open_at(at, &mut self.abbrevs)?;
        let die = die::whole(&open, at)?;
        match die.tag {
            gimli::DW_TAG_structure_type => match &die.variants {
                Some(_) => self.variants(&open, unit, name, die).map(Shape::Enum),
                None => self.members(&die).map(Shape::Struct),
            },
            gimli::DW_TAG_union_type => self.members(&die).map(Shape::Union),
            gimli::DW_TAG_enumeration_type => self.enumerators(&die, size).map(Shape::Enum),
            gimli::DW_TAG_pointer_type
            | gimli::DW_TAG_reference_type
            | gimli::DW_TAG_rvalue_reference_type => {
                Ok(Shape::Pointer(die.of.map(|of| self.intern(of, 0)).transpose()?))
            }
            gimli::DW_TAG_array_type => match (die.of, die.count) {
                (Some(of), Some(count)) => Ok(Shape::Array { of: self.intern(of, 0)?, count }),
                _ => Ok(Shape::Opaque),
            },
            _ => Ok(Shape::Opaque),
        }
    }

    fn members(&mut self, die: &Die<'_>) -> Result<Box<[Member]>> {
        let mut members = Vec::with_capacity(die.members.len());
        for field in &die.members {
            let ty = self.intern(field.of, 0)?;
            members.push(Member { name: self.text(field.name), offset: field.offset, ty });
        }
        Ok(members.into())
    }

    fn variants(
        &mut self,
        open: &Open<'_>,
        unit: usize,
        name: &str,
        die: Die<'_>,
    ) -> Result<Variants> {
        let fingerprint = die.fingerprint();
        let part = die.variants.unwrap_or_default();
        let tag = match &part.tag {
            Some(field) => {
                let of = self.intern(field.of, 0)?;
                let size = self.known(of)?.size;
                if !matches!(size, 1 | 2 | 4 | 8 | 16) {
                    return Err(malformed_type(name, "a discriminant of a strange size"));
                }
                Some(Tag { offset: field.offset, size: size as u8 })
            }
            None => None,
        };
        let mask = tag.map_or(u128::MAX, |tag| mask(tag.size));
        let mut list = Vec::with_capacity(part.list.len());
        for choice in part.list {
            let field = choice.field;
            let (payload, own) = if die.nested.contains(&field.of) {
                // A variant's struct is known by the enum's name and its own.
                let inner = die::whole(open, field.of)?;
                let own = inner.name.unwrap_or("?");
                let id = match self.by_offset.get(&field.of) {
                    Some(&known) => known,
                    None => {
                        let whole = format!("{name}::{own}");
                        let both = fingerprint ^ inner.fingerprint();
                        let id = self.add(Some(field.of), whole, inner.size.unwrap_or(0), both)?;
                        self.by_offset.insert(field.of, id);
                        id
                    }
                };
                (id, Some(own))
            } else {
                (self.intern(field.of, 0)?, None)
            };
            // Coroutines number their variants and name the structs in them.
            let numbered = field.name.is_empty() || field.name.bytes().all(|c| c.is_ascii_digit());
            let shown = if numbered { own.unwrap_or(field.name) } else { field.name };
            list.push(Variant {
                name: self.text(shown),
                values: choice
                    .values
                    .iter()
                    .map(|&(low, high)| (low & mask, high & mask))
                    .collect(),
                payload,
                offset: field.offset,
                place: field.decl.and_then(|decl| self.place(open, unit, decl)),
            });
        }
        Ok(Variants { tag, list: list.into() })
    }

    fn enumerators(&mut self, die: &Die<'_>, size: u64) -> Result<Variants> {
        let payload = self.void()?;
        let tag = matches!(size, 1 | 2 | 4 | 8 | 16).then(|| Tag { offset: 0, size: size as u8 });
        let mask = tag.map_or(u128::MAX, |tag| mask(tag.size));
        let list = die.enumerators.iter().map(|&(name, value)| Variant {
            name: self.text(name),
            values: [(value & mask, value & mask)].into(),
            payload,
            offset: 0,
            place: None,
        });
        Ok(Variants { tag, list: list.collect() })
    }
}

/// The bits of a discriminant.
fn mask(size: u8) -> u128 {
    if size >= 16 { u128::MAX } else { (1 << (u32::from(size) * 8)) - 1 }
}

fn malformed_type(name: &str, what: &str) -> Error {
    Error::new(ErrorKind::Malformed, format!("damaged debug information: {name}: {what}"))
}
