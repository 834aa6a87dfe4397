//! The code of a process: executable, shared libraries, vDSO.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use framehop::{ExplicitModuleSectionInfo, MayAllocateDuringUnwind, Unwinder as _, UnwinderNative};

use super::image::Origin;
use super::maps::{self, Backing, Mapping};
use crate::debuginfo::elf::Elf;
use crate::debuginfo::symbols::{self, Symbols};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Frame;
use crate::sys::sampler;

/// framehop's unwinder over sections of ours.
pub type NativeUnwinder = UnwinderNative<Arc<[u8]>, MayAllocateDuringUnwind>;

/// The most that is read of a vDSO; the real ones have two to four pages.
const MAX_VDSO: u64 = 64 * 1024;

/// One executable mapping of one file.
#[derive(Debug)]
pub struct Module {
    mapping: Mapping,
    /// Address in memory minus address as linked.
    bias: u64,
    elf: Arc<Elf>,
}

impl Module {
    /// A memory address as the linker saw it.
    pub fn file_address(&self, address: u64) -> u64 {
        address.wrapping_sub(self.bias)
    }

    /// Memory address of the function around a memory address.
    pub fn function_start(&self, address: u64) -> Option<u64> {
        let start = self.elf.function_start(self.file_address(address))?;
        Some(start.wrapping_add(self.bias))
    }
}

/// All modules, as of the last look at the mappings.
pub struct Modules {
    /// By ascending address.
    list: Vec<Module>,
    unwinder: NativeUnwinder,
    /// Mappings that could not be read: not tried again.
    unreadable: Vec<Mapping>,
    symbols: HashMap<Backing, DebugInfo>,
    origin: Origin,
}

/// The debug information of a file.
enum DebugInfo {
    /// Claimed by somebody who will hand it in.
    BeingRead,
    Read(Box<Symbols>),
    /// It cannot be read: not tried again.
    Unreadable,
}

impl From<Option<Symbols>> for DebugInfo {
    fn from(symbols: Option<Symbols>) -> Self {
        symbols.map_or(Self::Unreadable, |symbols| Self::Read(Box::new(symbols)))
    }
}

/// A file whose debug information is to be read by whoever has claimed it.
pub struct Claim {
    backing: Backing,
    path: Result<PathBuf>,
    own: bool,
}

impl Claim {
    /// Reads it: from some milliseconds to seconds, by its size.
    pub fn read(&self) -> Option<Symbols> {
        Symbols::open(self.path.as_ref().ok()?, self.own).ok()
    }
}

/// Copies memory of the process; how many bytes there were.
pub type ReadMemory<'a> = &'a mut dyn FnMut(&mut [u8], u64) -> usize;

impl Modules {
    /// This process's; none yet, [`Modules::refresh`] finds them.
    pub fn new() -> Self {
        Self::of(Origin::own(Vec::new()))
    }

    /// Those of any process; none yet, [`Modules::update`] is told them.
    pub fn of(origin: Origin) -> Self {
        Self {
            list: Vec::new(),
            unwinder: NativeUnwinder::new(),
            unreadable: Vec::new(),
            symbols: HashMap::new(),
            origin,
        }
    }

    /// The unwinder that knows them all.
    pub fn unwinder(&self) -> &NativeUnwinder {
        &self.unwinder
    }

    /// Looks at the mappings of this process again: adds what was loaded,
    /// forgets what is gone. Whether anything changed.
    ///
    /// # Errors
    /// Only if the mappings cannot be read; an unreadable file is left out.
    pub fn refresh(&mut self) -> Result<bool> {
        let now = maps::executable(maps::own()?);
        Ok(self.update(now, &mut |to, from| sampler::read_memory(to, from)))
    }

    /// Takes these executable mappings for all there are. Whether anything
    /// changed.
    pub fn update(&mut self, now: Vec<Mapping>, read: ReadMemory<'_>) -> bool {
        self.unreadable.retain(|mapping| now.contains(mapping));
        let unwinder = &mut self.unwinder;
        let mut changed = false;
        self.list.retain(|module| {
            let stays = now.contains(&module.mapping);
            if !stays {
                changed = true;
                unwinder.remove_module(module.mapping.range.start);
            }
            stays
        });
        for mapping in now {
            let known = self.list.iter().any(|module| module.mapping == mapping);
            if known || self.unreadable.contains(&mapping) {
                continue;
            }
            match self.load(&mapping, &mut *read) {
                Ok(module) => {
                    changed = true;
                    self.add(module);
                }
                Err(_) => self.unreadable.push(mapping),
            }
        }
        self.list.sort_unstable_by_key(|module| module.mapping.range.start);
        changed
    }

    fn load(&self, mapping: &Mapping, read: ReadMemory<'_>) -> Result<Module> {
        let elf = match &mapping.backing {
            Backing::Vdso => {
                let mut image =
                    vec![0; (mapping.range.end - mapping.range.start).min(MAX_VDSO) as usize];
                let len = read(&mut image, mapping.range.start);
                Arc::new(Elf::from_bytes(&image[..len])?)
            }
            backing => match self.list.iter().find(|module| module.mapping.backing == *backing) {
                Some(sibling) => Arc::clone(&sibling.elf),
                None => {
                    let path = self.readable_path(backing)?;
                    let elf = symbols::guarded(&path, || Elf::open(&path))??;
                    Arc::new(elf)
                }
            },
        };
        let offset = mapping.file_offset;
        let segment = elf.code.iter().find(|code| {
            // Mappings begin at page boundaries, segments need not.
            let len = code.range.end - code.range.start;
            let page = code.file_offset & !0xfff;
            (page..code.file_offset.saturating_add(len)).contains(&offset)
        });
        let Some(segment) = segment else {
            return Err(Error::new(ErrorKind::Malformed, "no segment for an executable mapping"));
        };
        let linked = segment.range.start.wrapping_sub(segment.file_offset).wrapping_add(offset);
        let bias = mapping.range.start.wrapping_sub(linked);
        Ok(Module { mapping: mapping.clone(), bias, elf })
    }

    fn add(&mut self, module: Module) {
        let elf = &module.elf;
        let range = |section: &Option<crate::debuginfo::elf::Section>| {
            section.as_ref().map(|section| section.range.clone())
        };
        let data = |section: &Option<crate::debuginfo::elf::Section>| {
            section.as_ref().map(|section| Arc::clone(&section.data))
        };
        let sections = ExplicitModuleSectionInfo {
            text_svma: elf.text.clone(),
            got_svma: elf.got.clone(),
            eh_frame_svma: range(&elf.eh_frame),
            eh_frame: data(&elf.eh_frame),
            eh_frame_hdr_svma: range(&elf.eh_frame_hdr),
            eh_frame_hdr: data(&elf.eh_frame_hdr),
            ..Default::default()
        };
        let range = module.mapping.range.clone();
        self.unwinder.add_module(framehop::Module::new(
            String::new(),
            range,
            module.bias,
            sections,
        ));
        self.list.push(module);
    }

    /// Where to read a mapped file. The program itself can be read even after
    /// its file was replaced; a library then cannot.
    fn readable_path(&self, backing: &Backing) -> Result<PathBuf> {
        match backing {
            Backing::File { deleted: false, .. } if self.is_executable(backing) => {
                Ok(self.origin.executable.clone())
            }
            Backing::File { deleted: true, .. } if self.is_executable(backing) => {
                Ok(self.origin.running.clone())
            }
            Backing::File { path, deleted: false } => Ok(self.origin.file(path)),
            Backing::File { path, .. } => Err(Error::new(
                ErrorKind::NotFound,
                format!("{} was replaced while in use", path.display()),
            )),
            _ => Err(Error::new(ErrorKind::NotFound, "no file is behind it")),
        }
    }

    fn is_executable(&self, backing: &Backing) -> bool {
        let (Backing::File { path, .. }, Some(named)) = (backing, &self.origin.named) else {
            return false;
        };
        path == named
    }

    /// The module around a memory address.
    pub fn find(&self, address: u64) -> Option<&Module> {
        let after = self.list.partition_point(|module| module.mapping.range.start <= address);
        let module = &self.list[after.checked_sub(1)?];
        module.mapping.range.contains(&address).then_some(module)
    }

    /// The program's own module.
    pub fn main(&self) -> Option<&Module> {
        self.list.iter().find(|module| self.is_executable(&module.mapping.backing))
    }

    /// Build id of the program.
    pub fn build_id(&self) -> Option<String> {
        self.main()?.elf.build_id.clone()
    }

    /// A file whose debug information nobody has begun to read, the program
    /// first. Whoever gets it reads it and hands it in; until then the file's
    /// addresses have no names.
    pub fn claim(&mut self) -> Option<Claim> {
        let unread = |module: &&Module| !self.symbols.contains_key(&module.mapping.backing);
        let main = self.main().filter(unread);
        let backing = main.or_else(|| self.list.iter().find(unread))?.mapping.backing.clone();
        Some(self.claim_of(backing))
    }

    /// As [`Modules::claim`], of the files around these addresses.
    pub fn claim_around(&mut self, addresses: &[u64]) -> Option<Claim> {
        let around = addresses.iter().filter_map(|&address| self.find(address));
        let mut backings = around.map(|module| &module.mapping.backing);
        let backing = backings.find(|backing| !self.symbols.contains_key(backing))?.clone();
        Some(self.claim_of(backing))
    }

    fn claim_of(&mut self, backing: Backing) -> Claim {
        self.symbols.insert(backing.clone(), DebugInfo::BeingRead);
        let (path, own) = (self.readable_path(&backing), self.is_executable(&backing));
        Claim { backing, path, own }
    }

    /// What the reading of a claim gave.
    pub fn hand_in(&mut self, claim: Claim, symbols: Option<Symbols>) {
        self.symbols.insert(claim.backing, symbols.into());
    }

    /// The debug information around these addresses has been read, as far as
    /// it can be.
    pub fn can_name(&self, addresses: &[u64]) -> bool {
        addresses.iter().filter_map(|&address| self.find(address)).all(|module| {
            let names = self.symbols.get(&module.mapping.backing);
            names.is_some_and(|names| !matches!(names, DebugInfo::BeingRead))
        })
    }

    fn symbols_of(&mut self, backing: &Backing) -> Option<&mut Symbols> {
        if !self.symbols.contains_key(backing) {
            let claim = self.claim_of(backing.clone());
            let symbols = claim.read();
            self.hand_in(claim, symbols);
        }
        match self.symbols.get_mut(backing)? {
            DebugInfo::Read(symbols) => Some(symbols),
            DebugInfo::BeingRead | DebugInfo::Unreadable => None,
        }
    }

    /// The frames at a memory address, innermost first.
    pub fn frames(&mut self, address: u64) -> Arc<[Frame]> {
        let Some(module) = self.find(address) else {
            let mut unreadable = self.unreadable.iter();
            let file = unreadable.find(|mapping| mapping.range.contains(&address));
            let place = match file.map(|mapping| &mapping.backing) {
                Some(Backing::File { path, .. }) => path.to_string_lossy(),
                _ => "code made at run time".into(),
            };
            return [symbols::unknown(address, &place)].into();
        };
        let linked = module.file_address(address);
        let backing = module.mapping.backing.clone();
        if let Some(symbols) = self.symbols_of(&backing) {
            return symbols.frames(linked);
        }
        let place = match &backing {
            Backing::File { path, .. } => path.to_string_lossy(),
            _ => "[vdso]".into(),
        };
        [symbols::unknown(linked, &place)].into()
    }

    /// Where code of the program as linked is in memory.
    pub fn main_address(&self, linked: u64) -> Option<u64> {
        let main = self.main()?;
        main.elf.code.iter().find(|code| code.range.contains(&linked))?;
        Some(linked.wrapping_add(main.bias))
    }
}

/// Function and `file:line` of a frame.
pub fn place(frame: &Frame) -> String {
    match &frame.location {
        Some(location) => format!("{} {location}", frame.function_full),
        None => frame.function_full.to_string(),
    }
}
