//! The units that a program has only skeletons of: in its package beside it, or
//! each in a file of its own. Both are read when an address leads there.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use addr2line::SplitDwarfLoad;
use gimli::{DebugCuIndex, Dwarf, DwoId, IndexSectionId, Reader as _, SectionId, UnitIndex};

use super::of_sections;
use crate::debuginfo::file::{Bytes, DebugFile, Place, Reader};
use crate::debuginfo::package_of;
use crate::error::Result;

/// What functions are looked up in; line tables stay in the program.
const SECTIONS: [SectionId; 5] = [
    SectionId::DebugAbbrev,
    SectionId::DebugInfo,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

/// Where a program's split units are.
pub(super) struct Split {
    package: PathBuf,
    opened: OnceCell<Option<Package>>,
}

impl Split {
    /// Of a program by its path.
    pub(super) fn of(program: &Path) -> Self {
        Self { package: package_of(program), opened: OnceCell::new() }
    }

    /// The rest of a unit. What cannot be read is as good as not there.
    pub(super) fn find(&self, load: &SplitDwarfLoad<Reader>) -> Option<Arc<Dwarf<Reader>>> {
        let package = self.opened.get_or_init(|| Package::open(&self.package).ok().flatten());
        let packed = package.as_ref().and_then(|package| package.unit(load.dwo_id));
        let mut dwarf = packed.or_else(|| single(load))?;
        dwarf.make_dwo(&load.parent);
        // A file of another build, or one that is being written.
        let header = dwarf.units().next().ok()??;
        (dwarf.unit(header).ok()?.dwo_id == Some(load.dwo_id)).then(|| Arc::new(dwarf))
    }
}

/// A unit in a file of its own, where the compiler put it.
fn single(load: &SplitDwarfLoad<Reader>) -> Option<Dwarf<Reader>> {
    let text = |part: &Reader| Some(part.to_string_lossy().ok()?.into_owned());
    let folder = load.comp_dir.as_ref().and_then(text).unwrap_or_default();
    let path = Path::new(&folder).join(load.path.as_ref().and_then(text)?);
    let file = DebugFile::beside(&path).ok()?;
    let found = file.sections(SECTIONS.map(|id| id.dwo_name().unwrap_or(""))).ok()?;
    Some(of_sections(&SECTIONS, &found))
}

/// A package of units (`.dwp`).
struct Package {
    file: DebugFile,
    index: UnitIndex<Reader>,
    places: [Place; SECTIONS.len()],
    /// All units' texts.
    texts: Bytes,
}

impl Package {
    /// Opens one; `None` if it is none.
    fn open(path: &Path) -> Result<Option<Self>> {
        let file = DebugFile::beside(path)?;
        let [index, texts] = file.sections([".debug_cu_index", ".debug_str.dwo"])?;
        let Ok(index) = DebugCuIndex::from(index.reader()).index() else { return Ok(None) };
        let places = file.places(SECTIONS.map(|id| id.dwo_name().unwrap_or("")))?;
        Ok(Some(Self { file, index, places, texts }))
    }

    /// What a unit has in each section.
    fn unit(&self, id: DwoId) -> Option<Dwarf<Reader>> {
        let row = self.index.find(id.0)?;
        let mut shares = [const { Bytes::None }; SECTIONS.len()];
        for share in self.index.sections(row).ok()? {
            let id = match share.section {
                IndexSectionId::DebugAbbrev => SectionId::DebugAbbrev,
                IndexSectionId::DebugInfo => SectionId::DebugInfo,
                IndexSectionId::DebugRngLists => SectionId::DebugRngLists,
                IndexSectionId::DebugStrOffsets => SectionId::DebugStrOffsets,
                _ => continue,
            };
            let at = SECTIONS.iter().position(|known| *known == id)?;
            let start = u64::from(share.offset);
            let range = start..start + u64::from(share.size);
            shares[at] = self.file.share(&self.places[at], range).ok()??;
        }
        let texts = SECTIONS.iter().position(|known| *known == SectionId::DebugStr)?;
        shares[texts] = self.texts.clone();
        Some(of_sections(&SECTIONS, &shares))
    }
}
