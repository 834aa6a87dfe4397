//! [`Layouts`] from DWARF: one pass keeps compact tables, types are parsed
//! when they are asked for.

mod answers;
mod shapes;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use addr2line::gimli;
use object::read::ReadCache;

use super::die;
use super::hash::Hash;
use super::polled;
use super::sections::Sections;
use super::split::Found;
use super::store::{Abbrevs, Open, Store};
use super::symbols::Named;
use super::tables::{NO_FUNCTION, Tables};
use super::thread_local::Segment;
use super::{Layouts as _, Place, Polled, Shape, TaskType, Type, TypeId};
use crate::debuginfo::file::{DebugFile, malformed};
use crate::debuginfo::homes;
use crate::debuginfo::symbols::guarded;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::map::MappedFile;

/// Qualifiers and aliases followed until a type is there.
const ALIASES: usize = 16;
/// Pointers to pointers, arrays of arrays: names made of others'.
const DEPTH: usize = 16;
/// Types that may be asked for: a walk over a large program takes some
/// thousands.
const MOST: usize = 1 << 20;

/// Names of these types together, in bytes.
const MAX_NAMES: usize = 256 << 20;
/// Pages of the file are given back after so many questions: each touches
/// some, with neighbours that the kernel brings along.
const RELEASE: u32 = 32;

/// Layouts from a program's debug information.
pub struct Dwarf {
    store: Arc<Store>,
    tables: Tables,
    segment: Option<Segment>,
    split: Found,
    abbrevs: Abbrevs,
    types: Vec<Known>,
    name_bytes: usize,
    by_offset: HashMap<u32, TypeId>,
    /// By name, size and what [`Die::fingerprint`] says: two versions of a
    /// crate have types of equal names.
    by_name: HashMap<(Hash, u64, u64), TypeId>,
    files: HashMap<(usize, u64), Option<Arc<str>>>,
    homes: Vec<String>,
    task_polls: Arc<[u64]>,
    polled: HashMap<TypeId, Option<Arc<Polled>>>,
    tasks: HashMap<u64, Arc<[TaskType]>>,
    /// By poll function, where nothing but symbols tells.
    named: HashMap<u64, Named>,
    texts: HashSet<Arc<str>>,
    void: Option<TypeId>,
    path: PathBuf,
    /// Questions that needed the debug information.
    asked: u32,
}

/// A type that was met.
struct Known {
    /// Global offset of its DIE; `None` for one that is made up here.
    at: Option<u32>,
    name: Arc<str>,
    hash: Hash,
    size: u64,
    parsed: Option<Arc<Type>>,
}

impl std::fmt::Debug for Dwarf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dwarf")
            .field("units", &self.store.units.len())
            .field("types", &self.tables.types.len())
            .field("parsed", &self.types.len())
            .finish_non_exhaustive()
    }
}

impl Dwarf {
    /// Reads a program's own debug information: maps the file and goes over
    /// its units once.
    ///
    /// # Errors
    /// `NotFound` or `Permission` for the file, `Malformed` for its content.
    #[cfg(any(test, fuzzing))]
    pub fn open(program: &Path) -> Result<Self> {
        Self::read(program, program, &[crate::debuginfo::package_of(program)], &Arc::default())
    }

    /// The same from another file with the debug information; where that is
    /// split, the rest is looked for in the packages.
    pub(super) fn read(
        program: &Path,
        debug: &Path,
        packages: &[PathBuf],
        stop: &Arc<AtomicBool>,
    ) -> Result<Self> {
        guarded(debug, || Self::read_files(program, debug, packages, stop))?
    }

    fn read_files(
        program: &Path,
        debug: &Path,
        packages: &[PathBuf],
        stop: &Arc<AtomicBool>,
    ) -> Result<Self> {
        let mapped = DebugFile::program(program)?;
        let segment = match mapped.map() {
            Some(map) => Segment::of(map).map_err(|error| malformed(program, error))?,
            None => None,
        };
        let mut sections = if debug == program {
            Sections::find(&mapped, "")?
        } else {
            Sections::find(&DebugFile::beside(debug)?, "")?
        };
        if debug != program && sections.addr.get().is_empty() {
            // `objcopy --only-keep-debug` keeps it; others may not.
            [sections.addr] = mapped.sections([".debug_addr"])?;
        }
        let mut store = Store::default();
        store.stop.clone_from(stop);
        let mut split = Found::default();
        if !sections.is_empty() {
            let skeletons = store.add(sections.clone())?;
            if !skeletons.is_empty() {
                split = super::split::add(&mut store, &sections, &skeletons, packages)?;
            }
        }
        Self::new(store, segment, split, debug)
    }

    /// Adds the tasks that only symbols tell of: of the program itself, or of
    /// the file that has what was stripped from it.
    pub(super) fn add_symbols(&mut self, program: &Path, debug: &Path) {
        let found = guarded(debug, || {
            let mapped = MappedFile::open(program)?;
            if debug == program {
                return Ok(super::symbols::tasks(mapped.as_ref(), mapped.as_ref()));
            }
            let symbols = ReadCache::new(File::open(debug)?);
            Ok::<_, std::io::Error>(super::symbols::tasks(mapped.as_ref(), &symbols))
        });
        // They are a last resort: a file without any is no error.
        let Ok(Ok(mut found)) = found else { return };
        found.retain(|named| self.task_polls.binary_search(&named.poll).is_err());
        let mut polls = self.task_polls.to_vec();
        polls.extend(found.iter().map(|named| named.poll));
        polls.sort_unstable();
        self.task_polls = polls.into();
        self.named = found.into_iter().map(|named| (named.poll, named)).collect();
    }

    /// Goes over what was found.
    pub(super) fn new(
        store: Store,
        segment: Option<Segment>,
        split: Found,
        path: &Path,
    ) -> Result<Self> {
        let tables = super::scan::scan(&store)?;
        let mut task_polls: Vec<u64> = tables.task_polls.iter().map(|poll| poll.address).collect();
        task_polls.dedup();
        let folders = store.units.iter().filter_map(|unit| unit.folder.as_deref());
        let homes = homes::among(folders);
        Ok(Self {
            segment,
            split,
            store: Arc::new(store),
            tables,
            abbrevs: Abbrevs::default(),
            types: Vec::new(),
            name_bytes: 0,
            by_offset: HashMap::new(),
            by_name: HashMap::new(),
            files: HashMap::new(),
            homes,
            task_polls: task_polls.into(),
            polled: HashMap::new(),
            tasks: HashMap::new(),
            named: HashMap::new(),
            texts: HashSet::new(),
            void: None,
            path: path.to_owned(),
            asked: 0,
        })
    }

    /// Memory of the tables, in bytes; the mapped file not counted.
    #[cfg(test)]
    pub(super) fn table_bytes(&self) -> usize {
        self.tables.bytes() + self.store.units.len() * size_of::<super::store::Unit>()
    }

    /// With the second vtable at the first one's address, as where both were
    /// found to be equal.
    #[cfg(test)]
    pub(super) fn with_merged(&mut self, first: u64, second: u64, then: impl FnOnce(&mut Self)) {
        let before = self.tables.vtables.clone();
        let moved = self.tables.vtables.iter_mut().filter(|vtable| vtable.address == second);
        moved.for_each(|vtable| vtable.address = first);
        self.tables.vtables.sort_unstable();
        then(self);
        self.tables.vtables = before;
    }

    /// All vtables with the types behind each, ascending.
    pub(super) fn vtables(&mut self) -> Vec<(u64, TypeId)> {
        let mut addresses: Vec<u64> =
            self.tables.vtables.iter().map(|vtable| vtable.address).collect();
        addresses.dedup();
        let mut known = Vec::with_capacity(addresses.len());
        for address in addresses {
            known.extend(self.behind(address).into_iter().map(|of| (address, of)));
        }
        known
    }

    /// All types whose names begin so.
    pub(super) fn all(&mut self, start: &str) -> Result<Vec<TypeId>> {
        let types = self.tables.types.clone();
        let mut found = Vec::new();
        let mut path = String::new();
        for (_, at) in types {
            path.clear();
            self.tables.paths.write(self.tables.path_of(at), &mut path);
            if path.starts_with(start) {
                found.push(self.safely(|layouts| layouts.intern(at, 0))?);
            }
        }
        Ok(found)
    }

    /// Memory of sections that are not mapped, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.store.held_bytes()
    }

    /// Whether there are types at all, of tokio or not.
    pub fn has_types(&self) -> bool {
        !self.tables.types.is_empty()
    }

    /// The package that has the rest of split debug information.
    #[cfg(feature = "cli")]
    pub(super) fn package(&self) -> Option<&Path> {
        self.split.package.as_deref()
    }

    /// What of the debug information is not there although it should be.
    pub fn remark(&self) -> Option<String> {
        let Found { units, missing, example, .. } = &self.split;
        let example = example.as_ref()?;
        Some(format!(
            "the debug information is split and {missing} of {} units are not found: put the \
             .dwp file beside the program or name it (one looked for: {})",
            units + missing,
            example.display()
        ))
    }

    /// Runs foreign parsers over the file's bytes.
    fn safely<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let path = self.path.clone();
        let answer = guarded(&path, || run(self))?;
        self.asked = self.asked.wrapping_add(1);
        if self.asked.is_multiple_of(RELEASE) {
            self.store.release();
        }
        answer
    }

    /// The type that a reference means, every equal one the same.
    fn intern(&mut self, at: u32, depth: usize) -> Result<TypeId> {
        if let Some(&known) = self.by_offset.get(&at) {
            return Ok(known);
        }
        let mut found = at;
        for _ in 0..ALIASES {
            let store = Arc::clone(&self.store);
            let (_, open) = store.open_at(found, &mut self.abbrevs)?;
            let die = die::head(&open, found)?;
            if matches!(
                die.tag,
                gimli::DW_TAG_typedef
                    | gimli::DW_TAG_const_type
                    | gimli::DW_TAG_volatile_type
                    | gimli::DW_TAG_restrict_type
                    | gimli::DW_TAG_atomic_type
            ) && let Some(of) = die.of
            {
                found = of;
                continue;
            }
            let id = self.intern_die(found, depth)?;
            self.by_offset.insert(at, id);
            return Ok(id);
        }
        Err(Error::new(ErrorKind::Malformed, "damaged debug information: aliases in a circle"))
    }

    fn intern_die(&mut self, at: u32, depth: usize) -> Result<TypeId> {
        if depth > DEPTH {
            return self.add(None, "..".to_owned(), 0, 0);
        }
        let store = Arc::clone(&self.store);
        let (_, open) = store.open_at(at, &mut self.abbrevs)?;
        let address = u64::from(open.address_size());
        let die = die::whole(&open, at)?;
        let fingerprint = die.fingerprint();
        let mut name = String::new();
        let mut size = die.size.unwrap_or(0);
        let (of, count, declaration) = (die.of, die.count, die.declaration);
        match die.tag {
            gimli::DW_TAG_pointer_type
            | gimli::DW_TAG_reference_type
            | gimli::DW_TAG_rvalue_reference_type => {
                size = die.size.unwrap_or(address);
                match die.name {
                    Some(given) => name.push_str(given),
                    None => {
                        name.push_str("*const ");
                        let of = of.map(|of| self.intern(of, depth + 1)).transpose()?;
                        name.push_str(of.map_or("()", |of| &self.types[of.0 as usize].name));
                    }
                }
            }
            gimli::DW_TAG_array_type => {
                let count = count.unwrap_or(0);
                let of = of.map(|of| self.intern(of, depth + 1)).transpose()?;
                let of = of.map(|of| &self.types[of.0 as usize]);
                size = of.map_or(0, |of| of.size).saturating_mul(count);
                name = format!("[{}; {count}]", of.map_or("()", |of| &of.name));
            }
            gimli::DW_TAG_structure_type
            | gimli::DW_TAG_union_type
            | gimli::DW_TAG_enumeration_type => {
                self.tables.paths.write(self.tables.path_of(at), &mut name);
                name.push_str(die.name.unwrap_or("?"));
                if declaration {
                    // Some unit has it whole.
                    let whole = self.tables.find(Hash::of(&name)).filter(|&whole| whole != at);
                    if let Some(whole) = whole {
                        return self.intern(whole, depth + 1);
                    }
                }
            }
            _ => name.push_str(die.name.unwrap_or("?")),
        }
        self.add(Some(at), name, size, fingerprint)
    }

    fn add(
        &mut self,
        at: Option<u32>,
        name: String,
        size: u64,
        fingerprint: u64,
    ) -> Result<TypeId> {
        let hash = Hash::of(&name);
        if let Some(&known) = self.by_name.get(&(hash, size, fingerprint)) {
            return Ok(known);
        }
        self.name_bytes += name.len();
        if self.types.len() >= MOST || self.name_bytes > MAX_NAMES {
            return Err(Error::new(ErrorKind::OutOfMemory, "too many types were asked for"));
        }
        let id = TypeId(self.types.len() as u32);
        self.types.push(Known { at, name: name.into(), hash, size, parsed: None });
        self.by_name.insert((hash, size, fingerprint), id);
        Ok(id)
    }

    /// A type by its name; one of which only the name is known otherwise.
    fn named(&mut self, name: &str) -> Result<TypeId> {
        match self.tables.find(Hash::of(name)) {
            Some(at) => self.intern(at, 0),
            None => self.add(None, name.to_owned(), 0, 0),
        }
    }

    /// A type without content, for variants without payload.
    fn void(&mut self) -> Result<TypeId> {
        if let Some(void) = self.void {
            return Ok(void);
        }
        let void = self.add(None, "()".to_owned(), 0, 0)?;
        self.void = Some(void);
        Ok(void)
    }

    fn known(&self, id: TypeId) -> Result<&Known> {
        let unknown = || Error::new(ErrorKind::InvalidInput, "a type of other layouts");
        self.types.get(id.0 as usize).ok_or_else(unknown)
    }

    fn parse(&mut self, id: TypeId) -> Result<Arc<Type>> {
        let known = self.known(id)?;
        if let Some(parsed) = &known.parsed {
            return Ok(Arc::clone(parsed));
        }
        let (name, size, at) = (Arc::clone(&known.name), known.size, known.at);
        let shape = match at {
            Some(at) => self.shape(at, &name, size)?,
            None if size == 0 && &*name == "()" => Shape::Struct(Box::default()),
            None => Shape::Opaque,
        };
        let parsed = Arc::new(Type { name, size, shape });
        self.types[id.0 as usize].parsed = Some(Arc::clone(&parsed));
        Ok(parsed)
    }

    /// One copy of a short text that occurs again and again.
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&shared));
        shared
    }

    fn place(&mut self, open: &Open<'_>, unit: usize, (file, line): (u64, u32)) -> Option<Place> {
        let file = match self.files.get(&(unit, file)) {
            Some(known) => known.clone(),
            None => {
                let path = open.file(file);
                let path = path.map(|path| self.text(homes::shorten(&self.homes, &path)));
                self.files.insert((unit, file), path.clone());
                path
            }
        };
        Some(Place { file: file?, line: (line > 0).then_some(line)? })
    }

    /// The types of a task's `poll` function: its template parameters.
    fn task_type(&mut self, function: u32) -> Result<Option<TaskType>> {
        let store = Arc::clone(&self.store);
        let (_, open) = store.open_at(function, &mut self.abbrevs)?;
        let die = die::whole(&open, function)?;
        let parameter = |name| die.parameters.iter().find(|known| known.0 == name);
        let (future, scheduler) = match (parameter("T"), parameter("S")) {
            (Some(&(_, future)), Some(&(_, scheduler))) => {
                (self.intern(future, 0)?, self.intern(scheduler, 0)?)
            }
            // Without types there are still their names.
            _ => {
                let Some((future, scheduler)) = die.name.and_then(polled::task_arguments) else {
                    return Ok(None);
                };
                (self.named(future)?, self.named(scheduler)?)
            }
        };
        let cell = format!(
            "tokio::runtime::task::core::Cell<{}, {}>",
            self.known(future)?.name,
            self.known(scheduler)?.name
        );
        let cell = match self.tables.find(Hash::of(&cell)) {
            Some(at) => Some(self.intern(at, 0)?),
            None => None,
        };
        Ok(Some(TaskType { future, scheduler, cell }))
    }

    fn poller(&mut self, id: TypeId) -> Result<Option<Polled>> {
        let known = self.known(id)?;
        let (name, hash) = (Arc::clone(&known.name), known.hash);
        let coroutine = polled::is_coroutine(&name);
        let function = match self.tables.poll_of(hash) {
            Some(NO_FUNCTION) => None,
            None if !coroutine => return Ok(None),
            other => other,
        };
        let Some(function) = function else {
            let function = polled::function(&name, None).into();
            return Ok(Some(Polled { function, place: None, coroutine }));
        };
        let store = Arc::clone(&self.store);
        let (unit, open) = store.open_at(function, &mut self.abbrevs)?;
        let die = die::head(&open, function)?;
        let place = die.decl.and_then(|decl| self.place(&open, unit, decl));
        let function = polled::function(&name, die.linkage);
        Ok(Some(Polled { function: function.into(), place, coroutine }))
    }
}
