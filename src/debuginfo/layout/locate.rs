//! Where a program's layouts are: in itself, in files beside it, in the
//! system's folder of debug information, in a saved layout file.
//!
//! | looked at | as |
//! | --- | --- |
//! | what the user names | debug file, package or layout file; must be of the same build |
//! | `EXE.taskprof`, `FOLDER/BUILDID.taskprof`, any `.taskprof` of this build in FOLDER | saved layout file |
//! | the program | DWARF, with `EXE.dwp`, `FOLDER/EXE.dwp` or its `.dwo` files where it is split |
//! | `.build-id/xx/yyyy.debug` below `/usr/lib/debug` and FOLDER | debug file, by build id |
//! | the name in `.gnu_debuglink`: beside it, in `.debug/`, below `/usr/lib/debug`, in FOLDER | debug file, by build id or checksum |
//! | `EXE.debug`, `FOLDER/EXE.debug` | debug file, by build id |
//! | the symbols of the best of these | names of tasks, where types are missing |
//!
//! The first with everything wins; otherwise the one with most.

use std::path::{Path, PathBuf};

use super::identity::{Identity, checksum};
use super::saved::{self, Saved};
use super::split::package_of;
use super::{Detail, Dwarf, Layouts};
use crate::error::{Error, ErrorKind, Result};

/// The system's folder of debug information.
const SYSTEM: &str = "/usr/lib/debug";

/// Files of a folder that are looked at.
const MOST_FILES: usize = 1_000;

/// Unpacked debug information that is kept in memory.
const UNPACKED: usize = 4 << 20;

/// Where else to look for layouts.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A debug file (`.debug`, `.dwp`, or the program before it was stripped).
    pub debug_file: Option<PathBuf>,
    /// A saved layout file.
    pub layout: Option<PathBuf>,
    /// A folder of saved layout files and of debug files; what it has of other
    /// builds is passed over.
    pub folder: Option<PathBuf>,
}

/// Layouts and where they were found.
pub struct Opened {
    /// The layouts.
    pub layouts: Box<dyn Layouts>,
    /// The file that they are from.
    pub path: PathBuf,
    /// From a saved layout file, not from debug information.
    pub saved: bool,
    /// What is missing although the program says it exists.
    pub remark: Option<String>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("detail", &self.layouts.detail())
            .field("path", &self.path)
            .field("saved", &self.saved)
            .field("remark", &self.remark)
            .finish()
    }
}

/// Folders in which files of many programs lie.
#[derive(Clone, Copy)]
struct Stores<'f> {
    /// The system's.
    system: &'f Path,
    /// The user's.
    folder: Option<&'f Path>,
}

/// Finds the layouts of a program. One without any is no error: the answer
/// then knows nothing ([`Detail::Nothing`]).
///
/// # Errors
/// `NotFound` or `Permission` for the program or a file the user names;
/// `InvalidInput` if such a file is of another build; `Malformed` for damaged
/// ones. Damaged files that were only come across are passed over.
pub fn open(program: &Path, options: &Options) -> Result<Opened> {
    open_with(program, options, Path::new(SYSTEM))
}

fn open_with(program: &Path, options: &Options, system: &Path) -> Result<Opened> {
    let identity = Identity::of(program)?;
    let names = names_of(program);
    let stores = Stores { system, folder: options.folder.as_deref() };
    if let Some(layout) = &options.layout {
        return saved(layout, program, &identity);
    }
    if let Some(debug) = &options.debug_file {
        if saved::is_saved(debug) {
            return saved(debug, program, &identity);
        }
        let layouts = debug_file(program, debug, &identity, &names)?;
        return Ok(opened(layouts, program, debug.clone(), &identity));
    }
    for path in saved_files(&names, &identity, stores.folder) {
        if path.is_file()
            && let Ok(found) = saved(&path, program, &identity)
        {
            return Ok(found);
        }
    }
    let (layouts, path) = search(program, &identity, &names, stores)?;
    Ok(opened(layouts, program, path, &identity))
}

/// Debug information to make a saved layout file of.
#[cfg(feature = "cli")]
#[derive(Debug)]
pub struct Source {
    /// The layouts in it.
    pub layouts: Dwarf,
    /// The file it is in.
    pub path: PathBuf,
    /// What the program's saved layouts are keyed by.
    pub key: String,
    /// Size of the debug information as it lies in that file, in bytes.
    pub bytes: u64,
}

/// Finds the debug information of a program, saved layouts left aside.
///
/// For what is written into a layout file.
///
/// # Errors
/// As for [`open`].
#[cfg(feature = "cli")]
pub fn source(program: &Path, debug: Option<&Path>) -> Result<Source> {
    let identity = Identity::of(program)?;
    let names = names_of(program);
    let (layouts, path) = match debug {
        Some(debug) => (debug_file(program, debug, &identity, &names)?, debug.to_owned()),
        None => {
            let stores = Stores { system: Path::new(SYSTEM), folder: None };
            search(program, &identity, &names, stores)?
        }
    };
    let bytes = super::identity::debug_bytes(&path)?
        + layouts.package().map_or(Ok(0), super::identity::debug_bytes)?;
    Ok(Source { layouts, path, key: identity.key(), bytes })
}

/// The best debug information that there is.
fn search(
    program: &Path,
    identity: &Identity,
    names: &[PathBuf],
    stores: Stores<'_>,
) -> Result<(Dwarf, PathBuf)> {
    let mut packages: Vec<PathBuf> = names.iter().map(|name| package_of(name)).collect();
    let kept = names.iter().filter_map(|name| Some(stores.folder?.join(name.file_name()?)));
    packages.extend(kept.map(|name| package_of(&name)));
    let mut best = (Dwarf::read(program, program, &packages)?, program.to_owned());
    for (path, sum) in debug_files(names, identity, stores) {
        if best.0.detail() == Detail::Full {
            break;
        }
        if !path.is_file() || !matches(&path, sum, identity) {
            continue;
        }
        let mut packages = packages.clone();
        packages.push(package_of(&path));
        let Ok(found) = Dwarf::read(program, &path, &packages) else { continue };
        if found.detail() > best.0.detail() {
            best = (found, path);
        }
    }
    Ok(best)
}

/// Debug information that had to be unpacked is let go again: what dumps need
/// of it takes a hundredth of the memory, and a second once.
fn opened(mut layouts: Dwarf, program: &Path, path: PathBuf, identity: &Identity) -> Opened {
    let remark = layouts.remark();
    if layouts.detail() != Detail::Full {
        layouts.add_symbols(program, &path);
        return Opened { layouts: Box::new(layouts), path, saved: false, remark };
    }
    if layouts.unpacked_bytes() > UNPACKED
        && let Ok(compact) = saved::compact(&mut layouts, &identity.key())
    {
        return Opened { layouts: Box::new(compact), path, saved: false, remark };
    }
    Opened { layouts: Box::new(layouts), path, saved: false, remark }
}

fn saved(path: &Path, program: &Path, identity: &Identity) -> Result<Opened> {
    let layouts = Saved::open(path)?;
    if *layouts.key() != *identity.key() {
        return Err(wrong_build(path, layouts.key(), program, &identity.key()));
    }
    Ok(Opened { layouts: Box::new(layouts), path: path.to_owned(), saved: true, remark: None })
}

fn wrong_build(path: &Path, has: &str, program: &Path, wanted: &str) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!(
            "{} is of another build: its build id is {has}, that of {} is {wanted}",
            path.display(),
            program.display()
        ),
    )
}

/// A file that the user names.
fn debug_file(
    program: &Path,
    debug: &Path,
    identity: &Identity,
    names: &[PathBuf],
) -> Result<Dwarf> {
    let theirs = Identity::of(debug)?;
    if let (Some(ours), Some(their)) = (&identity.build_id, &theirs.build_id)
        && ours != their
    {
        return Err(wrong_build(debug, their, program, ours));
    }
    let mut packages = vec![debug.to_owned(), package_of(debug)];
    packages.extend(names.iter().map(|name| package_of(name)));
    // A package has no debug information of its own: the program has the
    // skeletons.
    let of = if theirs.is_package { program } else { debug };
    let found = Dwarf::read(program, of, &packages)?;
    if found.detail() == Detail::Nothing {
        let reason = found
            .remark()
            .unwrap_or_else(|| "no debug information of a tokio program in it".to_owned());
        let text = format!("{}: {reason}", debug.display());
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(found)
}

/// The paths under which a program is known: as given, and where a link such
/// as `/proc/PID/exe` leads, in that process's own root as well.
fn names_of(program: &Path) -> Vec<PathBuf> {
    let mut names = vec![program.to_owned()];
    if let Ok(target) = std::fs::read_link(program)
        && target.is_absolute()
    {
        // Replaced while it runs: the link then says so behind the name.
        let text = target.to_string_lossy().into_owned();
        let target = match text.strip_suffix(" (deleted)") {
            Some(before) => PathBuf::from(before),
            None => target,
        };
        if let Some(process) = program.strip_prefix("/proc").ok().and_then(|rest| rest.parent())
            && let Ok(inside) = target.strip_prefix("/")
        {
            names.push(Path::new("/proc").join(process).join("root").join(inside));
        }
        names.push(target);
    }
    if let Ok(canonical) = program.canonicalize() {
        names.push(canonical);
    }
    let mut known = Vec::new();
    names.retain(|name| {
        let new = !known.contains(name);
        known.push(name.clone());
        new
    });
    names
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn saved_files(names: &[PathBuf], identity: &Identity, folder: Option<&Path>) -> Vec<PathBuf> {
    let mut files: Vec<_> = names.iter().map(|name| with_suffix(name, ".taskprof")).collect();
    let Some(folder) = folder else { return files };
    files.push(folder.join(format!("{}.taskprof", identity.key())));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut others: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "taskprof"))
        .take(MOST_FILES)
        .filter(|path| saved::key_of(path).is_some_and(|key| key == identity.key()))
        .collect();
    others.sort();
    files.extend(others);
    files
}

/// Debug files that may belong to a program, with the checksum that the
/// program knows of it.
fn debug_files(
    names: &[PathBuf],
    identity: &Identity,
    stores: Stores<'_>,
) -> Vec<(PathBuf, Option<u32>)> {
    let mut files = Vec::new();
    if let Some(id) = &identity.build_id
        && id.len() > 2
        && id.is_ascii()
    {
        let (head, tail) = id.split_at(2);
        let within = format!(".build-id/{head}/{tail}.debug");
        files.push((stores.system.join(&within), None));
        files.extend(stores.folder.map(|folder| (folder.join(&within), None)));
    }
    for name in names {
        let Some(folder) = name.parent() else { continue };
        if let Some((link, sum)) = &identity.debug_link {
            let below = folder.strip_prefix("/").map(|inside| stores.system.join(inside));
            let mut folders = vec![folder.to_owned(), folder.join(".debug")];
            folders.extend(below);
            folders.extend(stores.folder.map(Path::to_owned));
            files.extend(folders.into_iter().map(|folder| (folder.join(link), Some(*sum))));
        }
        files.push((with_suffix(name, ".debug"), None));
        if let (Some(folder), Some(name)) = (stores.folder, name.file_name()) {
            files.push((with_suffix(&folder.join(name), ".debug"), None));
        }
    }
    files
}

/// Whether a file that was come across is of the same build.
fn matches(path: &Path, sum: Option<u32>, identity: &Identity) -> bool {
    let Ok(theirs) = Identity::of(path) else { return false };
    match (&identity.build_id, &theirs.build_id) {
        (Some(ours), Some(their)) => ours == their,
        // Without build ids only the checksum proves it.
        _ => sum.is_some_and(|sum| checksum(path).is_ok_and(|found| found == sum)),
    }
}

#[cfg(test)]
mod tests;
