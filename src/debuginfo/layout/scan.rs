//! The one pass over all units.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use addr2line::gimli::{self, Attribute, AttributeValue, EntriesRaw};

use super::hash::Hash;
use super::polled;
use super::sections::{Slice, damaged, terminated};
use super::store::{Abbrevs, Location, Open, Store};
use super::tables::{
    Far, From, NO_FUNCTION, PathId, PollOf, Tables, TaskPoll, ThreadLocal, Vtable,
};
use crate::error::{Error, ErrorKind, Result};

/// Threads for the pass.
const THREADS: usize = 2;
/// Mapped pages are given back after so many bytes of units: read once, they
/// would count as this process's memory until the kernel wants them.
const RELEASE: u64 = 12 << 20;
/// Units that a thread takes at once.
const BATCH: usize = 16;
/// Time for the pass. A hundred times what it takes for a large program: only
/// files made to take long need it.
const TIME: Duration = Duration::from_secs(120);
/// Names of all namespaces together, in bytes; a program has less than one
/// hundredth of it.
const PATHS: usize = 64 << 20;
/// Namespaces within each other. More is no program.
const DEPTH: usize = 256;

/// Where tasks' `poll` functions live.
const TASK_PATH: &str = "tokio::runtime::task::raw::";
/// In the linkage name of tokio's thread-local `CONTEXT`, legacy and v0.
const CONTEXT: &[u8] = b"7runtime7context7CONTEXT";

/// Scans everything.
///
/// # Errors
/// `Malformed` for damaged debug information.
pub(super) fn scan(store: &Store) -> Result<Tables> {
    let next = AtomicUsize::new(0);
    let read = AtomicU64::new(0);
    let deadline = Instant::now() + TIME;
    let work = || -> Result<Tables> {
        let mut tables = Tables::default();
        let mut abbrevs = Abbrevs::default();
        loop {
            let from = next.fetch_add(BATCH, Ordering::Relaxed);
            if from >= store.units.len() {
                return Ok(tables);
            }
            for unit in from..store.units.len().min(from + BATCH) {
                if store.stop.load(Ordering::Relaxed) {
                    return Err(Error::new(ErrorKind::Timeout, "reading was stopped"));
                }
                if Instant::now() > deadline {
                    let text = "the debug information takes too long to read";
                    return Err(Error::new(ErrorKind::Timeout, text));
                }
                let open = store.open(unit, &mut abbrevs)?;
                Scan::new(&open, &mut tables).unit().map_err(damaged)?;
                let len = u64::from(open.unit.end - open.unit.start);
                let before = read.fetch_add(len, Ordering::Relaxed);
                if before / RELEASE != (before + len) / RELEASE {
                    store.release();
                }
                if tables.paths.text_bytes() > PATHS {
                    let text = "damaged debug information: names without end";
                    return Err(Error::new(ErrorKind::Malformed, text));
                }
            }
        }
    };
    let mut tables = Tables::default();
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..THREADS).map(|_| scope.spawn(work)).collect();
        tables.absorb(work()?);
        for other in others {
            let found = other.join().map_err(|_| {
                Error::new(ErrorKind::Internal, "the reader of debug information panicked")
            })?;
            tables.absorb(found?);
        }
        Ok::<(), Error>(())
    })?;
    follow(store, &mut tables)?;
    store.release();
    tables.seal();
    Ok(tables)
}

/// Follows the references that led out of their units: link-time optimisation
/// makes them.
fn follow(store: &Store, tables: &mut Tables) -> Result<()> {
    let mut far = std::mem::take(&mut tables.far);
    // By target: each unit is opened once.
    far.sort_unstable();
    let mut abbrevs = Abbrevs::default();
    for Far { to, from } in far {
        // One that leads nowhere is found damaged when somebody asks for it.
        let Ok((_, open)) = store.open_at(to, &mut abbrevs) else { continue };
        let mut scan = Scan::new(&open, tables);
        let _ = match from {
            From::Receiver(function) => scan.polled_by(to, function),
            From::Vtable(address) => scan.vtable(address, to),
        };
    }
    Ok(())
}

/// One unit's walk.
struct Scan<'s, 'a> {
    open: &'s Open<'a>,
    tables: &'s mut Tables,
    /// Path of each open namespace, and the depth of its children.
    scopes: Vec<(isize, PathId)>,
    /// Path of the last type that was noted.
    run: Option<PathId>,
    attributes: Vec<Attribute<Slice<'a>>>,
    /// Depth of the children of the outermost type or function around.
    inside: Option<isize>,
}

/// A function that may be of interest, while its children are read.
struct Function {
    at: u32,
    depth: isize,
}

impl<'s, 'a> Scan<'s, 'a> {
    fn new(open: &'s Open<'a>, tables: &'s mut Tables) -> Self {
        Self { open, tables, scopes: Vec::new(), run: None, attributes: Vec::new(), inside: None }
    }

    fn unit(mut self) -> gimli::Result<()> {
        let open = self.open;
        let mut entries = open.entries(None)?;
        // A method whose `self` parameter is still to come.
        let mut method: Option<Function> = None;
        while !entries.is_empty() {
            let at = open.global(entries.next_offset());
            let depth = entries.next_depth();
            let Some(abbrev) = entries.read_abbreviation()? else { continue };
            while self.scopes.last().is_some_and(|scope| scope.0 > depth) {
                self.scopes.pop();
            }
            if self.inside.is_some_and(|inside| depth < inside) {
                self.inside = None;
            }
            if method.as_ref().is_some_and(|method| depth <= method.depth) {
                method = None;
            }
            let path = self.scopes.last().map_or(0, |scope| scope.1);
            match abbrev.tag() {
                gimli::DW_TAG_namespace => {
                    self.read(&mut entries, abbrev.attributes())?;
                    if abbrev.has_children() && self.scopes.len() < DEPTH {
                        let name = self.text(gimli::DW_AT_name).unwrap_or("");
                        let child = self.tables.paths.child(path, name);
                        self.scopes.push((depth + 1, child));
                    }
                }
                gimli::DW_TAG_structure_type
                | gimli::DW_TAG_enumeration_type
                | gimli::DW_TAG_union_type
                    if self.inside.is_none() =>
                {
                    self.read(&mut entries, abbrev.attributes())?;
                    self.note_type(at, path);
                    if abbrev.has_children() {
                        self.inside = Some(depth + 1);
                    }
                }
                gimli::DW_TAG_subprogram => {
                    self.read(&mut entries, abbrev.attributes())?;
                    method = self.function(at, depth, path);
                    if !abbrev.has_children() {
                        method = None;
                    } else if method.is_none() {
                        skip_children(&mut entries, depth)?;
                    } else if self.inside.is_none() {
                        self.inside = Some(depth + 1);
                    }
                }
                gimli::DW_TAG_formal_parameter
                    if method.as_ref().is_some_and(|method| depth == method.depth + 1) =>
                {
                    self.read(&mut entries, abbrev.attributes())?;
                    if let Some(method) = method.take() {
                        self.receiver(&method)?;
                        if abbrev.has_children() {
                            skip_children(&mut entries, depth)?;
                        }
                        skip_children(&mut entries, method.depth)?;
                    }
                }
                gimli::DW_TAG_variable if self.inside.is_none() => {
                    self.read(&mut entries, abbrev.attributes())?;
                    self.variable()?;
                }
                _ => entries.skip_attributes(abbrev.attributes())?,
            }
        }
        Ok(())
    }

    fn read(
        &mut self,
        entries: &mut EntriesRaw<'_, Slice<'a>>,
        specs: &[gimli::AttributeSpecification],
    ) -> gimli::Result<()> {
        entries.read_attributes(specs, &mut self.attributes)
    }

    fn value(&self, name: gimli::DwAt) -> Option<AttributeValue<Slice<'a>>> {
        let found = self.attributes.iter().find(|attribute| attribute.name() == name)?;
        Some(found.value())
    }

    fn text(&self, name: gimli::DwAt) -> Option<&'a str> {
        std::str::from_utf8(self.open.string(self.value(name)?)?).ok()
    }

    fn note_type(&mut self, at: u32, path: PathId) {
        if self.run != Some(path) {
            self.run = Some(path);
            self.tables.runs.push((at, path));
        }
        if self.value(gimli::DW_AT_declaration).is_some() {
            return;
        }
        let Some(name) = self.value(gimli::DW_AT_name) else { return };
        let Some(name) = self.open.string(name) else { return };
        let hash = self.tables.paths.hash(path).with(name);
        self.tables.types.push((hash.value(), at));
        if is_coroutine_env(name) {
            self.tables.coroutines += 1;
        }
    }

    /// Notes what the function's name tells; answers it if its first
    /// parameter will tell more.
    fn function(&mut self, at: u32, depth: isize, path: PathId) -> Option<Function> {
        // Most functions are of no interest: their names are not read whole.
        let name = self.open.string_from(self.value(gimli::DW_AT_name)?)?;
        if !name.starts_with(b"poll") && !name.starts_with(b"{async_") {
            return None;
        }
        let name = std::str::from_utf8(terminated(name)).ok()?;
        if let Some(rest) = name.strip_prefix("{async_") {
            // `{async_fn#0}<T>` polls `{async_fn_env#0}<T>`.
            let (kind, rest) = rest.split_once('#')?;
            let hash = self.tables.paths.hash(path);
            let hash = hash.with(b"{async_").with(kind.as_bytes()).with(b"_env#");
            let of = hash.with(rest.as_bytes()).value();
            self.tables.polls.push(PollOf { of, function: at });
            return None;
        }
        let rest = name.strip_prefix("poll")?;
        let rest = rest.strip_prefix("_next").unwrap_or(rest);
        if !rest.is_empty() && !rest.starts_with('<') {
            return None;
        }
        let address = self.value(gimli::DW_AT_low_pc).and_then(|value| self.open.address(value));
        let address = address.filter(|&address| !self.open.is_dropped(address));
        // With line tables only there are no namespaces: then the name has to
        // tell it from other functions of two types.
        let bare = path == 0 && polled::task_arguments(name).is_some_and(is_scheduler);
        if bare || self.tables.paths.is(path, TASK_PATH) {
            if let Some(address) = address {
                self.tables.task_polls.push(TaskPoll { address, function: at });
            }
            // What a task runs is a future, even if its own `poll` went into
            // this function without a trace.
            if let Some((future, _)) = polled::task_arguments(name) {
                self.is_future(future);
            }
            return None;
        }
        Some(Function { at, depth })
    }

    /// A method's first parameter: `Pin<&mut X>` makes X a future.
    fn receiver(&mut self, method: &Function) -> gimli::Result<()> {
        let Some(of) = self.value(gimli::DW_AT_type) else { return Ok(()) };
        let Some(at) = self.open.reference(of) else { return Ok(()) };
        if !self.open.contains(at) {
            self.tables.far.push(Far { to: at, from: From::Receiver(method.at) });
            return Ok(());
        }
        self.polled_by(at, method.at)
    }

    /// Notes X for the type `Pin<&mut X>` of a parameter.
    fn polled_by(&mut self, at: u32, function: u32) -> gimli::Result<()> {
        let mut entries = self.open.entries(Some(at))?;
        let Some(abbrev) = entries.read_abbreviation()? else { return Ok(()) };
        self.read(&mut entries, abbrev.attributes())?;
        let Some(name) = self.text(gimli::DW_AT_name) else { return Ok(()) };
        let inner = name.strip_prefix("Pin<&mut ").and_then(|rest| rest.strip_suffix('>'));
        if let Some(inner) = inner {
            let of = Hash::of(inner).value();
            self.tables.polls.push(PollOf { of, function });
        }
        Ok(())
    }

    /// Notes a type of which no more is known than that it is polled.
    fn is_future(&mut self, name: &str) {
        let of = Hash::of(name).value();
        self.tables.polls.push(PollOf { of, function: NO_FUNCTION });
    }

    fn variable(&mut self) -> gimli::Result<()> {
        let Some(name) = self.value(gimli::DW_AT_name) else { return Ok(()) };
        let Some(name) = self.open.string_from(name) else { return Ok(()) };
        let is_vtable = name.starts_with(b"<") && terminated(name).ends_with(b"::{vtable}");
        if !is_vtable {
            let linkage = self.value(gimli::DW_AT_linkage_name);
            let Some(linkage) = linkage.and_then(|value| self.open.string(value)) else {
                return Ok(());
            };
            if !linkage.windows(CONTEXT.len()).any(|part| part == CONTEXT) {
                return Ok(());
            }
        }
        let (Some(location), Some(of)) =
            (self.value(gimli::DW_AT_location), self.value(gimli::DW_AT_type))
        else {
            return Ok(());
        };
        let Some(of) = self.open.reference(of) else { return Ok(()) };
        if is_vtable && let Some(future) = polled::future_behind(terminated(name)) {
            self.is_future(future);
        }
        match self.open.location(location) {
            Some(Location::Address(address)) if is_vtable && !self.open.is_dropped(address) => {
                self.vtable(address, of)
            }
            Some(Location::ThreadLocal(offset)) if !is_vtable => {
                self.tables.contexts.push(ThreadLocal { offset, of });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A vtable's type says what it is the vtable of.
    fn vtable(&mut self, address: u64, at: u32) -> gimli::Result<()> {
        if !self.open.contains(at) {
            self.tables.far.push(Far { to: at, from: From::Vtable(address) });
            return Ok(());
        }
        let mut entries = self.open.entries(Some(at))?;
        let Some(abbrev) = entries.read_abbreviation()? else { return Ok(()) };
        self.read(&mut entries, abbrev.attributes())?;
        let of = self.value(gimli::DW_AT_containing_type);
        if let Some(of) = of.and_then(|of| self.open.reference(of)) {
            self.tables.vtables.push(Vtable { address, of });
        }
        Ok(())
    }
}

/// Whether the second type is one of tokio's schedulers.
fn is_scheduler((_, scheduler): (&str, &str)) -> bool {
    [
        "alloc::sync::Arc<tokio::runtime::",
        "alloc::sync::Arc<tokio::task::local::",
        "tokio::runtime::",
    ]
    .iter()
    .any(|start| scheduler.starts_with(start))
}

/// Skips what is deeper than `depth`. Inside functions nothing is of
/// interest, and there most of the debug information is.
fn skip_children(entries: &mut EntriesRaw<'_, Slice<'_>>, depth: isize) -> gimli::Result<()> {
    while entries.next_depth() > depth && !entries.is_empty() {
        if let Some(abbrev) = entries.read_abbreviation()? {
            entries.skip_attributes(abbrev.attributes())?;
        }
    }
    Ok(())
}

/// `{async_fn_env#0}`, `{async_block_env#1}<T>`, `{gen_block_env#0}`.
pub(super) fn is_coroutine_env(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"{") else { return false };
    let kind = rest.split(|&byte| byte == b'#').next().unwrap_or_default();
    kind.ends_with(b"_env") && kind != b"closure_env"
}
