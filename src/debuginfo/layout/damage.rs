//! Any bytes as debug information or as saved layouts: read or refused, but
//! never a panic, and never more memory or time than the bytes are worth.
//!
//! The fuzz target `fuzz/fuzz_targets/layouts.rs` calls [`any_bytes`]; tests
//! run it over the corpus and over damaged units of the test program itself.

use std::path::Path;
use std::sync::Arc;

use super::sections::Sections;
use super::split::Found;
use super::store::Store;
use super::{Dwarf, Layouts, Saved, Shape};
use crate::debuginfo::file::Bytes;
use crate::error::Result;

/// Types that are looked at in one go.
const TYPES: usize = 500;

/// Reads bytes as what their first one says: 0 is a saved file, 1 the body of
/// one (its checksum not in the way), others DWARF: two lengths of 32 bits,
/// `.debug_abbrev`, `.debug_str`, and the rest is `.debug_info`.
pub fn any_bytes(bytes: &[u8]) {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let _ = match kind {
        0 => Saved::from_bytes(rest).map(|mut saved| ask(&mut saved)),
        1 => Saved::from_body(rest.to_vec(), "fuzz".to_owned()).map(|mut saved| ask(&mut saved)),
        _ => match sections(rest) {
            Some(sections) => dwarf(sections),
            None => return,
        },
    };
}

/// Reads bytes as a program of which only symbols are known.
pub fn any_program(bytes: &[u8]) {
    super::symbols::tasks(bytes, bytes);
    if let Ok(elf) = crate::debuginfo::elf::Elf::from_bytes(bytes) {
        elf.function_start(elf.text.as_ref().map_or(0, |text| text.start));
    }
}

/// The inverse of `sections`, for the corpus.
#[cfg(test)]
pub(super) fn seed(abbrev: &[u8], str: &[u8], info: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2];
    bytes.extend_from_slice(&(abbrev.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(str.len() as u32).to_le_bytes());
    bytes.extend([abbrev, str, info].concat());
    bytes
}

fn sections(bytes: &[u8]) -> Option<Sections> {
    let (abbrev, rest) = bytes.split_first_chunk()?;
    let (str, rest) = rest.split_first_chunk()?;
    let (abbrev, rest) = rest.split_at_checked(u32::from_le_bytes(*abbrev) as usize)?;
    let (str, info) = rest.split_at_checked(u32::from_le_bytes(*str) as usize)?;
    let bytes = |bytes: &[u8]| Bytes::Held(Arc::new(bytes.to_vec()));
    Some(Sections {
        abbrev: bytes(abbrev),
        str: bytes(str),
        info: bytes(info),
        ..Sections::default()
    })
}

/// Reads debug information, asks it everything, saves it and asks again.
fn dwarf(sections: Sections) -> Result<()> {
    let mut store = Store::default();
    store.add(sections)?;
    let mut layouts = Dwarf::new(store, None, Found::default(), Path::new("fuzz"))?;
    ask(&mut layouts);
    for (address, of) in layouts.vtables() {
        layouts.behind(address);
        layouts.polled(of);
    }
    for id in layouts.all("")?.into_iter().take(TYPES) {
        let ty = layouts.ty(id)?;
        layouts.find(&ty.name);
        layouts.polled(id);
    }
    let (file, _) = super::write(&mut layouts, "fuzz")?;
    ask(&mut Saved::from_bytes(&file)?);
    Ok(())
}

/// Asks what a dump asks, and follows what types consist of.
fn ask(layouts: &mut dyn Layouts) {
    layouts.detail();
    let mut queue = Vec::new();
    for &poll in layouts.task_polls().iter() {
        for task in layouts.task(poll).iter() {
            queue.extend([task.future, task.scheduler]);
            queue.extend(task.cell);
        }
    }
    queue.extend(layouts.context().map(|context| context.1));
    queue.extend(layouts.find("core::option::Option<u32>"));
    for _ in 0..TYPES {
        let Some(id) = queue.pop() else { break };
        layouts.polled(id);
        let Ok(ty) = layouts.ty(id) else { continue };
        match &ty.shape {
            Shape::Struct(members) | Shape::Union(members) => {
                queue.extend(members.iter().map(|member| member.ty));
            }
            Shape::Enum(variants) => {
                queue.extend(variants.list.iter().map(|variant| variant.payload));
            }
            Shape::Pointer(to) => queue.extend(*to),
            Shape::Array { of, .. } => queue.push(*of),
            Shape::Opaque => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::PathBuf;
    use std::sync::LazyLock;

    use addr2line::gimli;
    use proptest::prelude::*;

    use super::super::store::{Abbrevs, Open};
    use super::*;
    use crate::debuginfo::file::DebugFile;

    /// Units of this test program, each cut out to stand alone: the smallest
    /// ones with a task, with a coroutine, with a vtable, and with the first two.
    static UNITS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let path = std::env::current_exe().unwrap();
        let file = DebugFile::program(&path).unwrap();
        let mut store = Store::default();
        store.add(Sections::find(&file, "").unwrap()).unwrap();
        let mut sizes: Vec<(u32, usize)> = store
            .units
            .iter()
            .enumerate()
            .map(|(index, unit)| (unit.end - unit.start, index))
            .collect();
        sizes.sort_unstable();
        let mut found = Vec::new();
        type Wanted = fn(&[String]) -> bool;
        let task: Wanted = |names| names.iter().any(|name| name.contains("4task3raw4poll"));
        let coroutine: Wanted = |names| names.iter().any(|name| name.starts_with("{async_"));
        let vtable: Wanted = |names| names.iter().any(|name| name.ends_with("{vtable}"));
        let mut wanted = vec![vec![coroutine], vec![vtable], vec![task], vec![task, coroutine]];
        for (size, index) in sizes {
            if wanted.is_empty() || size > 1_000_000 {
                break;
            }
            let open = store.open(index, &mut Abbrevs::default()).unwrap();
            let (seed, names) = cut_out(&open);
            let before = wanted.len();
            wanted.retain(|kind| !kind.iter().all(|has| has(&names)));
            if wanted.len() < before {
                found.push(seed());
            }
        }
        assert!(wanted.is_empty(), "some kinds of units are not in this program");
        found
    });

    /// A unit's bytes with strings and abbreviations of its own.
    fn cut_out(open: &Open<'_>) -> (impl FnOnce() -> Vec<u8>, Vec<String>) {
        let unit = open.unit;
        let (mut info, abbrev) = open.bytes();
        let mut last_code = 0;
        let mut strings: HashMap<Vec<u8>, u32> = HashMap::new();
        let (mut str, mut names) = (Vec::new(), Vec::new());
        let mut entries = open.entries(None).unwrap();
        let root = entries.next_offset().0 as u32;
        while !entries.is_empty() {
            let Some(found) = entries.read_abbreviation().unwrap() else { continue };
            last_code = last_code.max(found.code());
            for spec in found.attributes() {
                let at = entries.next_offset().0;
                let attribute = entries.read_attribute(*spec).unwrap();
                if spec.form() == gimli::DW_FORM_ref_addr {
                    // Other units are left behind: the root stands for them.
                    info[at..at + 4].copy_from_slice(&root.to_le_bytes());
                }
                if spec.form() != gimli::DW_FORM_strp {
                    continue;
                }
                let mut text = open.string(attribute.value()).unwrap().to_vec();
                if text.starts_with(b"/") {
                    // Folders of the machine that it was compiled on.
                    text = b"/folder".to_vec();
                }
                names.push(String::from_utf8_lossy(&text).into_owned());
                let place = *strings.entry(text.clone()).or_insert_with(|| {
                    let place = str.len() as u32;
                    str.extend_from_slice(&text);
                    str.push(0);
                    place
                });
                info[at..at + 4].copy_from_slice(&place.to_le_bytes());
            }
        }
        assert_eq!((unit.end - unit.start) as usize, info.len());
        // Where the abbreviations begin: behind length and version, in
        // version 5 behind two more bytes.
        let at = if info[4] < 5 { 6 } else { 8 };
        info[at..at + 4].copy_from_slice(&0_u32.to_le_bytes());
        let seed = move || {
            // The table ends somewhere behind the last abbreviation in use.
            let enough = |len: &usize| {
                let table = gimli::DebugAbbrev::new(&abbrev[..*len], gimli::LittleEndian);
                let table = table.abbreviations(gimli::DebugAbbrevOffset(0));
                table.is_ok_and(|table| table.get(last_code).is_some())
            };
            // Cut in the middle of an entry it cannot be read: then the next.
            let lengths = std::iter::successors(Some(64), |len| Some(len + len / 4));
            let len = lengths.take_while(|&len| len < abbrev.len()).find(enough);
            seed(&abbrev[..len.unwrap_or(abbrev.len())], &str, &info)
        };
        (seed, names)
    }

    fn corpus() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/layouts")
    }

    #[test]
    fn units_that_were_cut_out_are_whole() {
        for unit in UNITS.iter() {
            dwarf(sections(&unit[1..]).unwrap()).unwrap();
        }
    }

    #[test]
    fn the_corpus_is_read_or_refused() {
        let mut seen = 0;
        for entry in std::fs::read_dir(corpus()).unwrap() {
            any_bytes(&std::fs::read(entry.unwrap().path()).unwrap());
            seen += 1;
        }
        assert!(seen >= 5, "{seen}");
    }

    /// Makes the corpus from this test program:
    /// `cargo test --lib damage::tests::make_corpus -- --ignored`.
    #[test]
    #[ignore = "writes into the repository"]
    fn make_corpus() {
        std::fs::create_dir_all(corpus()).unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(corpus().join(name), bytes).unwrap();
        for (number, unit) in UNITS.iter().enumerate() {
            write(&format!("unit-{number}"), unit);
            write(&format!("unit-{number}-cut"), &unit[..unit.len() * 2 / 3]);
        }
        let (file, body) = &*SAVED;
        write("saved", &[&[0], &file[..]].concat());
        write("saved-body", &[&[1], &body[..]].concat());
    }

    /// A saved file of the first unit that has types and futures to save (it
    /// depends on how the compiler divides the program), and its inflated body.
    static SAVED: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
        let saved = UNITS.iter().find_map(|unit| {
            let mut store = Store::default();
            store.add(sections(&unit[1..]).unwrap()).unwrap();
            let mut layouts = Dwarf::new(store, None, Found::default(), Path::new("unit")).unwrap();
            let (file, written) = super::super::write(&mut layouts, "abc").unwrap();
            (written.types > 0 && written.futures > 0).then_some(file)
        });
        let file = saved.expect("a unit with futures");
        let head = 8 + 4 + 4 + 4 + 1 + 3;
        let mut body = Vec::new();
        let mut inflater = flate2::read::ZlibDecoder::new(&file[head..]);
        std::io::Read::read_to_end(&mut inflater, &mut body).unwrap();
        (file, body)
    });

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn damaged_units_never_panic(
            which in any::<prop::sample::Index>(),
            hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut unit = UNITS[which.index(UNITS.len())].clone();
            for (at, byte) in hits {
                // The lengths stay: nothing would be read at all.
                let at = 9 + at.index(unit.len() - 9);
                unit[at] = byte;
            }
            any_bytes(&unit);
        }

        #[test]
        fn damaged_abbreviations_never_panic(
            hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut unit = UNITS[0].clone();
            let len = u32::from_le_bytes(unit[1..5].try_into().unwrap()) as usize;
            for (at, byte) in hits {
                unit[9 + at.index(len)] = byte;
            }
            any_bytes(&unit);
        }

        #[test]
        fn damaged_saved_layouts_never_panic(
            hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            end in any::<prop::sample::Index>(),
        ) {
            let (file, body) = &*SAVED;
            for (kind, bytes) in [(0, file), (1, body)] {
                let mut bytes = [&[kind], &bytes[..]].concat();
                for (at, byte) in &hits {
                    let at = 1 + at.index(bytes.len() - 1);
                    bytes[at] = *byte;
                }
                any_bytes(&bytes);
                bytes.truncate(1 + end.index(bytes.len()));
                any_bytes(&bytes);
            }
        }
    }
}
