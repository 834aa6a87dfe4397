//! One type's DIE with its children, as it is written.

use addr2line::gimli::{self, Attribute, AttributeValue, EntriesRaw};

use super::hash::Hash;
use super::sections::{Slice, damaged};
use super::store::Open;
use crate::error::{Error, ErrorKind, Result};

/// Members, variants or enumerators of one type. The largest known enums, of
/// generated bindings, have some thousands.
const MOST: usize = 65_536;

/// A type's DIE.
#[derive(Debug)]
pub(super) struct Die<'a> {
    pub(super) tag: gimli::DwTag,
    pub(super) name: Option<&'a str>,
    pub(super) size: Option<u64>,
    pub(super) declaration: bool,
    /// Type referred to: a pointer's target, an array's element.
    pub(super) of: Option<u32>,
    pub(super) members: Vec<Field<'a>>,
    pub(super) variants: Option<Part<'a>>,
    /// Name and value.
    pub(super) enumerators: Vec<(&'a str, u128)>,
    /// Of an array.
    pub(super) count: Option<u64>,
    /// Template parameters: name and type.
    pub(super) parameters: Vec<(&'a str, u32)>,
    /// Types inside it.
    pub(super) nested: Vec<u32>,
    pub(super) decl: Option<(u64, u32)>,
    pub(super) linkage: Option<&'a str>,
}

impl Die<'_> {
    /// Tells apart types of equal names and sizes: their members' names and
    /// places, and for coroutines the lines.
    pub(super) fn fingerprint(&self) -> u64 {
        let variants = self
            .variants
            .iter()
            .flat_map(|part| part.tag.iter().chain(part.list.iter().map(|choice| &choice.field)));
        let fields = self.members.iter().chain(variants).fold(Hash::default(), |hash, field| {
            let line = field.decl.map_or(0, |decl| decl.1);
            hash.with(field.name.as_bytes())
                .with(&field.offset.to_le_bytes())
                .with(&line.to_le_bytes())
        });
        let names = self.enumerators.iter().fold(fields, |hash, (name, value)| {
            hash.with(name.as_bytes()).with(&value.to_le_bytes())
        });
        names.value()
    }
}

/// A member.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    pub(super) offset: u64,
    pub(super) of: u32,
    /// File number and line.
    pub(super) decl: Option<(u64, u32)>,
}

/// A variant part.
#[derive(Debug, Default)]
pub(super) struct Part<'a> {
    pub(super) tag: Option<Field<'a>>,
    pub(super) list: Vec<Choice<'a>>,
}

/// A variant.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    pub(super) values: Vec<(u128, u128)>,
    pub(super) field: Field<'a>,
}

/// Reads a DIE's own attributes only.
///
/// # Errors
/// `Malformed`.
pub(super) fn head<'a>(open: &Open<'a>, at: u32) -> Result<Die<'a>> {
    let mut entries = open.entries(Some(at)).map_err(damaged)?;
    let mut attributes = Vec::new();
    let Some(abbrev) = entries.read_abbreviation().map_err(damaged)? else {
        return Err(Error::new(ErrorKind::Malformed, "a reference leads to no type"));
    };
    entries.read_attributes(abbrev.attributes(), &mut attributes).map_err(damaged)?;
    Ok(fill(open, abbrev.tag(), &attributes))
}

/// Reads a DIE and its children.
///
/// # Errors
/// `Malformed`.
pub(super) fn whole<'a>(open: &Open<'a>, at: u32) -> Result<Die<'a>> {
    let mut entries = open.entries(Some(at)).map_err(damaged)?;
    let mut attributes = Vec::new();
    let Some(abbrev) = entries.read_abbreviation().map_err(damaged)? else {
        return Err(Error::new(ErrorKind::Malformed, "a reference leads to no type"));
    };
    entries.read_attributes(abbrev.attributes(), &mut attributes).map_err(damaged)?;
    let mut die = fill(open, abbrev.tag(), &attributes);
    if abbrev.has_children() {
        children(open, &mut entries, &mut die).map_err(damaged)?;
    }
    Ok(die)
}

/// Goes through the children; `entries` stands behind the DIE's attributes.
fn children<'a>(
    open: &Open<'a>,
    entries: &mut EntriesRaw<'_, Slice<'a>>,
    die: &mut Die<'a>,
) -> gimli::Result<()> {
    let mut attributes = Vec::new();
    // Where the discriminant is described, as the variant part says.
    let mut discriminant = None;
    let mut values = Vec::new();
    let mut in_part = false;
    while !entries.is_empty() && entries.next_depth() >= 1 {
        let at = open.global(entries.next_offset());
        let depth = entries.next_depth();
        let Some(abbrev) = entries.read_abbreviation()? else { continue };
        let tag = abbrev.tag();
        if depth == 1 {
            // Types inside have members as deep as a variant part has its own.
            in_part = tag == gimli::DW_TAG_variant_part;
        }
        let wanted = (depth == 1 || in_part)
            && matches!(
                (depth, tag),
                (
                    1,
                    gimli::DW_TAG_member
                        | gimli::DW_TAG_variant_part
                        | gimli::DW_TAG_enumerator
                        | gimli::DW_TAG_subrange_type
                        | gimli::DW_TAG_template_type_parameter
                ) | (2, gimli::DW_TAG_member | gimli::DW_TAG_variant)
                    | (3, gimli::DW_TAG_member)
            );
        if depth == 1 && is_type(tag) {
            die.nested.push(at);
        }
        if !wanted {
            entries.skip_attributes(abbrev.attributes())?;
            continue;
        }
        entries.read_attributes(abbrev.attributes(), &mut attributes)?;
        let full = die.members.len() + die.enumerators.len() + die.parameters.len() >= MOST
            || die.variants.as_ref().is_some_and(|part| part.list.len() >= MOST);
        if full {
            return Ok(());
        }
        let value = |name| value(&attributes, name);
        match (depth, tag) {
            (1, gimli::DW_TAG_member) => die.members.extend(field(open, &attributes)),
            (1, gimli::DW_TAG_variant_part) => {
                discriminant = value(gimli::DW_AT_discr).and_then(|value| open.reference(value));
                die.variants = Some(Part::default());
            }
            (1, gimli::DW_TAG_enumerator) => {
                let number = attributes
                    .iter()
                    .find(|attribute| attribute.name() == gimli::DW_AT_const_value)
                    .and_then(|attribute| number(attribute.value()));
                if let (Some(name), Some(number)) = (text(open, &attributes), number) {
                    die.enumerators.push((name, number));
                }
            }
            (1, gimli::DW_TAG_subrange_type) => {
                die.count = value(gimli::DW_AT_count)
                    .and_then(|value| value.udata_value())
                    .or_else(|| value(gimli::DW_AT_upper_bound)?.udata_value()?.checked_add(1));
            }
            (1, gimli::DW_TAG_template_type_parameter) => {
                let of = value(gimli::DW_AT_type).and_then(|value| open.reference(value));
                if let (Some(name), Some(of)) = (text(open, &attributes), of) {
                    die.parameters.push((name, of));
                }
            }
            (2, gimli::DW_TAG_member) => {
                if let Some(part) = &mut die.variants
                    && discriminant == Some(at)
                {
                    part.tag = field(open, &attributes);
                }
            }
            (2, gimli::DW_TAG_variant) => {
                values = claimed(&attributes);
            }
            (3, gimli::DW_TAG_member) => {
                if let (Some(part), Some(field)) = (&mut die.variants, field(open, &attributes)) {
                    part.list.push(Choice { values: std::mem::take(&mut values), field });
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_type(tag: gimli::DwTag) -> bool {
    matches!(
        tag,
        gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type | gimli::DW_TAG_enumeration_type
    )
}

fn value<'a>(
    attributes: &[Attribute<Slice<'a>>],
    name: gimli::DwAt,
) -> Option<AttributeValue<Slice<'a>>> {
    attributes.iter().find(|attribute| attribute.name() == name).map(Attribute::value)
}

fn text<'a>(open: &Open<'a>, attributes: &[Attribute<Slice<'a>>]) -> Option<&'a str> {
    std::str::from_utf8(open.string(value(attributes, gimli::DW_AT_name)?)?).ok()
}

fn decl(attributes: &[Attribute<Slice<'_>>]) -> Option<(u64, u32)> {
    let file = match value(attributes, gimli::DW_AT_decl_file)? {
        AttributeValue::FileIndex(file) => file,
        other => other.udata_value()?,
    };
    let line = value(attributes, gimli::DW_AT_decl_line)?.udata_value()?;
    Some((file, u32::try_from(line).ok()?))
}

fn field<'a>(open: &Open<'a>, attributes: &[Attribute<Slice<'a>>]) -> Option<Field<'a>> {
    Some(Field {
        name: text(open, attributes).unwrap_or(""),
        offset: value(attributes, gimli::DW_AT_data_member_location)
            .map_or(Some(0), |value| value.udata_value())?,
        of: open.reference(value(attributes, gimli::DW_AT_type)?)?,
        decl: decl(attributes),
    })
}

fn fill<'a>(open: &Open<'a>, tag: gimli::DwTag, attributes: &[Attribute<Slice<'a>>]) -> Die<'a> {
    let value = |name| value(attributes, name);
    Die {
        tag,
        name: text(open, attributes),
        size: value(gimli::DW_AT_byte_size).and_then(|value| value.udata_value()),
        declaration: value(gimli::DW_AT_declaration).is_some(),
        of: value(gimli::DW_AT_type).and_then(|value| open.reference(value)),
        decl: decl(attributes),
        linkage: value(gimli::DW_AT_linkage_name)
            .and_then(|value| open.string(value))
            .and_then(|text| std::str::from_utf8(text).ok()),
        members: Vec::new(),
        variants: None,
        enumerators: Vec::new(),
        count: None,
        parameters: Vec::new(),
        nested: Vec::new(),
    }
}

/// A discriminant as it is written: signed ones sign-extended to 128 bits.
fn number(value: AttributeValue<Slice<'_>>) -> Option<u128> {
    match value {
        AttributeValue::Data1(value) => Some(value.into()),
        AttributeValue::Data2(value) => Some(value.into()),
        AttributeValue::Data4(value) => Some(value.into()),
        AttributeValue::Data8(value) => Some(value.into()),
        AttributeValue::Data16(value) => Some(value),
        AttributeValue::Udata(value) => Some(value.into()),
        AttributeValue::Sdata(value) => Some(i128::from(value) as u128),
        // LLVM writes what is wider than 64 bits as a block.
        AttributeValue::Block(bytes) if bytes.len() <= 16 => {
            let mut wide = [0; 16];
            wide[..bytes.len()].copy_from_slice(bytes.slice());
            Some(u128::from_le_bytes(wide))
        }
        _ => None,
    }
}

/// The discriminants that a variant claims.
fn claimed(attributes: &[Attribute<Slice<'_>>]) -> Vec<(u128, u128)> {
    if let Some(value) = value(attributes, gimli::DW_AT_discr_value) {
        return number(value).map(|value| (value, value)).into_iter().collect();
    }
    let Some(AttributeValue::Block(list)) = value(attributes, gimli::DW_AT_discr_list) else {
        return Vec::new();
    };
    let mut list = list;
    let mut claimed = Vec::new();
    while claimed.len() < MOST {
        // A label has one value, a range two.
        let range = gimli::Reader::read_u8(&mut list).and_then(|kind| {
            let low = u128::from(gimli::Reader::read_uleb128(&mut list)?);
            let high = match gimli::DwDsc(kind) {
                gimli::DW_DSC_range => u128::from(gimli::Reader::read_uleb128(&mut list)?),
                _ => low,
            };
            Ok((low, high))
        });
        let Ok(range) = range else { break };
        claimed.push(range);
    }
    claimed
}
