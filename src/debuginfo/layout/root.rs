//! What the root of a unit says of the rest of it.
//!
//! The root is read without the unit's other abbreviations: a program has
//! thousands of units, and this is all that is needed of each at first.

use addr2line::gimli::{
    self, Abbreviations, AttributeSpecification, AttributeValue, EntriesRaw, Reader as _, UnitType,
};

use super::sections::{Slice, View};

/// Attributes that the root of a unit may have; in practice some ten.
const ATTRIBUTES: usize = 256;
/// Abbreviations skipped until the root's is there. It is the first in all
/// that LLVM writes.
const ABBREVIATIONS: usize = 4096;

/// Attributes of a unit's root.
#[derive(Debug, Default)]
pub(super) struct Root<'a> {
    pub(super) str_offsets: Option<u64>,
    pub(super) addr: Option<u64>,
    /// Its line program, which names the files.
    pub(super) line: Option<u64>,
    /// Folder in which it was compiled.
    pub(super) folder: Option<&'a [u8]>,
    /// File with the rest of it, and by which number it is found there: this
    /// unit is only a skeleton.
    pub(super) split: Option<(&'a [u8], u64)>,
    /// What identifies the unit in both halves.
    pub(super) id: Option<u64>,
}

/// Reads a unit's root; `abbrev` is where its abbreviations are.
///
/// # Errors
/// Damaged debug information.
pub(super) fn read<'a>(
    view: &View<'a>,
    header: &gimli::UnitHeader<Slice<'a>>,
    abbrev: u64,
    str_offsets: u64,
) -> gimli::Result<Root<'a>> {
    let specs = specifications(view, header, abbrev)?;
    let empty = Abbreviations::default();
    let mut input = header.range_from(header.root_offset()..)?;
    input.read_uleb128()?;
    let mut entries = EntriesRaw::new(input, header.encoding(), &empty, header.root_offset());
    let mut root = Root::default();
    let (mut folder, mut name, mut id) = (None, None, None);
    for spec in specs {
        let attribute = entries.read_attribute(spec)?;
        match (attribute.name(), attribute.value()) {
            (gimli::DW_AT_str_offsets_base, AttributeValue::DebugStrOffsetsBase(base)) => {
                root.str_offsets = Some(base.0 as u64);
            }
            (
                gimli::DW_AT_addr_base | gimli::DW_AT_GNU_addr_base,
                AttributeValue::DebugAddrBase(base),
            ) => root.addr = Some(base.0 as u64),
            (gimli::DW_AT_stmt_list, AttributeValue::DebugLineRef(at)) => {
                root.line = Some(at.0 as u64);
            }
            (gimli::DW_AT_comp_dir, value) => folder = Some(value),
            (gimli::DW_AT_dwo_name | gimli::DW_AT_GNU_dwo_name, value) => name = Some(value),
            (gimli::DW_AT_GNU_dwo_id, AttributeValue::DwoId(value)) => id = Some(value.0),
            _ => {}
        }
    }
    if let UnitType::Skeleton(found) | UnitType::SplitCompilation(found) = header.type_() {
        id = Some(found.0);
    }
    let str_offsets = root.str_offsets.unwrap_or(str_offsets);
    let text = |value| view.string(value, header.format(), str_offsets);
    root.folder = folder.and_then(text);
    root.split = name.and_then(text).zip(id);
    root.id = id;
    Ok(root)
}

/// How the root's attributes are written.
fn specifications(
    view: &View<'_>,
    header: &gimli::UnitHeader<Slice<'_>>,
    abbrev: u64,
) -> gimli::Result<Vec<AttributeSpecification>> {
    let mut root = header.range_from(header.root_offset()..)?;
    let wanted = root.read_uleb128()?;
    let mut input = view.abbrevs;
    input.skip(usize::try_from(abbrev).map_err(|_| gimli::Error::UnsupportedOffset)?)?;
    for _ in 0..ABBREVIATIONS {
        let code = input.read_uleb128()?;
        if code == 0 {
            break;
        }
        let _tag = input.read_uleb128_u16()?;
        let _children = input.read_u8()?;
        let mut specs = Vec::new();
        loop {
            let name = input.read_uleb128_u16()?;
            let form = gimli::DwForm(input.read_uleb128_u16()?);
            if name == 0 && form.0 == 0 {
                break;
            }
            let constant = match form {
                gimli::DW_FORM_implicit_const => Some(input.read_sleb128()?),
                _ => None,
            };
            if specs.len() < ATTRIBUTES {
                specs.push(AttributeSpecification::new(gimli::DwAt(name), form, constant));
            }
        }
        if code == wanted {
            return Ok(specs);
        }
    }
    Err(gimli::Error::InvalidAbbreviationCode(wanted))
}
