//! Where a program's layouts are: in itself, in files beside it, in the
//! system's folder of debug information, in a saved layout file.
//!
//! | looked at | as |
//! | --- | --- |
//! | what the user names | debug file, package or layout file; must be of the same build |
//! | `EXE.taskprof`, `FOLDER/BUILDID.taskprof` | saved layout file |
//! | any other `FOLDER/*.taskprof` | saved layout file, by the build id in its header |
//! | what was kept of an earlier reading, on the command line | saved layout file |
//! | the program | DWARF, with its `.dwp` or `.dwo` files, beside it or in `FOLDER`, where it is split |
//! | `FOLDER/xx/yyyy.debug`, `FOLDER/.build-id/xx/yyyy.debug` | debug file, by build id |
//! | the name in `.gnu_debuglink` in `FOLDER` | debug file, by build id or checksum |
//! | `FOLDER/EXE.debug` | debug file, by build id |
//! | `/usr/lib/debug/.build-id/xx/yyyy.debug` | debug file, by build id |
//! | the name in `.gnu_debuglink`: beside it, in `.debug/`, below `/usr/lib/debug` | debug file, by build id or checksum |
//! | `EXE.debug` | debug file, by build id |
//! | the symbols of the best of these | names of tasks, where types are missing |
//!
//! The first with everything wins; otherwise the one with most.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::identity::{Identity, checksum};
use super::saved::{self, Saved};
use super::{Detail, Dwarf, Layouts};
use crate::debuginfo::package_of;
use crate::error::{Error, ErrorKind, Result};

/// The system's folder of debug information.
const SYSTEM: &str = "/usr/lib/debug";

/// Names looked at in a folder that the user gave, and layout files of other
/// names that are opened there.
const LISTED: usize = 16_384;
const HEADERS: usize = 1_024;

/// Debug information that is kept in memory as it is, in bytes.
const HELD: usize = 4 << 20;

/// Where else to look for layouts.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A debug file (`.debug`, `.dwp`, or the program before it was stripped).
    pub debug_file: Option<PathBuf>,
    /// A saved layout file.
    pub layout: Option<PathBuf>,
    /// Folders of saved layout files and debug information, of this program
    /// and of others; the first that has something of this build wins.
    pub folders: Vec<PathBuf>,
    /// Where layouts are kept that were read once.
    #[cfg(feature = "cli")]
    pub cache: Option<super::Cache>,
    /// Turns true when nobody wants them any more: reading then ends soon,
    /// with `Timeout`.
    pub stop: Arc<AtomicBool>,
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
    /// Types are described in it, whether of tokio or not.
    pub has_types: bool,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("detail", &self.layouts.detail())
            .field("path", &self.path)
            .field("saved", &self.saved)
            .field("has_types", &self.has_types)
            .field("remark", &self.remark)
            .finish()
    }
}

/// Finds the layouts of a program. One without any is no error: the answer
/// then knows nothing ([`Detail::Nothing`]).
///
/// # Errors
/// `NotFound` or `Permission` for the program or a file the user names;
/// `InvalidInput` if such a file is of another build; `Malformed` for damaged
/// ones. Damaged files that were only come across are passed over.
pub fn open(program: &Path, options: &Options) -> Result<Opened> {
    open_below(program, options, Path::new(SYSTEM))
}

/// The same with the system's debug information elsewhere.
pub(super) fn open_below(program: &Path, options: &Options, system: &Path) -> Result<Opened> {
    let identity = Identity::of(program)?;
    let names = names_of(program);
    if let Some(layout) = &options.layout {
        return saved(layout, program, &identity);
    }
    if let Some(debug) = &options.debug_file {
        if saved::is_saved(debug) {
            return saved(debug, program, &identity);
        }
        let layouts = debug_file(program, debug, &identity, &names, &options.stop)?;
        return Ok(opened(layouts, program, debug.clone(), &identity));
    }
    let mut refused = None;
    for path in saved_files(&names, &identity, &options.folders).filter(|path| path.is_file()) {
        match saved(&path, program, &identity) {
            Ok(found) => return Ok(found),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    #[cfg(feature = "cli")]
    if let Some(found) = kept(program, &identity, options) {
        return Ok(found);
    }
    #[cfg_attr(not(feature = "cli"), allow(unused_mut))] // nothing is kept
    let (mut layouts, path) = search(program, &identity, &names, options, system)?;
    #[cfg(feature = "cli")]
    keep(&mut layouts, &identity, options);
    let mut found = opened(layouts, program, path, &identity);
    if let Some(error) = refused
        && found.layouts.detail() < Detail::Full
    {
        // Somebody put it there for this program, and wonders.
        let remark = format!("a layout file was not read: {error}");
        found.remark = Some(match found.remark {
            Some(other) => format!("{remark}; {other}"),
            None => remark,
        });
    }
    Ok(found)
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
        Some(debug) => {
            (debug_file(program, debug, &identity, &names, &Arc::default())?, debug.to_owned())
        }
        None => search(program, &identity, &names, &Options::default(), Path::new(SYSTEM))?,
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
    Options { folders, stop, .. }: &Options,
    system: &Path,
) -> Result<(Dwarf, PathBuf)> {
    // Files of single units are looked for beside these, so in the folders too.
    let kept = in_folders(folders, names);
    let mut packages: Vec<PathBuf> =
        names.iter().chain(&kept).map(|name| package_of(name)).collect();
    if let Some((link, _)) = &identity.debug_link {
        packages.extend(folders.iter().map(|folder| package_of(&folder.join(link))));
    }
    let mut best = (Dwarf::read(program, program, &packages, stop)?, program.to_owned());
    let given = kept_debug_files(folders, &kept, identity);
    for (path, sum) in given.into_iter().chain(debug_files(names, identity, system)) {
        if best.0.detail() == Detail::Full {
            break;
        }
        if !path.is_file() || !matches(&path, sum, identity) {
            continue;
        }
        let mut packages = packages.clone();
        packages.push(package_of(&path));
        let Ok(found) = Dwarf::read(program, &path, &packages, stop) else { continue };
        if found.detail() > best.0.detail() {
            best = (found, path);
        }
    }
    Ok(best)
}

/// Debug information that had to be unpacked, or read because its file may be
/// written to, is let go again: what dumps need of it takes a hundredth of the
/// memory, and a second once.
fn opened(mut layouts: Dwarf, program: &Path, path: PathBuf, identity: &Identity) -> Opened {
    let (remark, has_types) = (layouts.remark(), layouts.has_types());
    if layouts.detail() != Detail::Full {
        layouts.add_symbols(program, &path);
        return Opened { layouts: Box::new(layouts), path, saved: false, remark, has_types };
    }
    if layouts.held_bytes() > HELD
        && let Ok(compact) = saved::compact(&mut layouts, &identity.key())
    {
        return Opened { layouts: Box::new(compact), path, saved: false, remark, has_types };
    }
    Opened { layouts: Box::new(layouts), path, saved: false, remark, has_types }
}

/// What was kept of an earlier reading.
#[cfg(feature = "cli")]
fn kept(program: &Path, identity: &Identity, options: &Options) -> Option<Opened> {
    let cache = options.cache.as_ref()?;
    let path = cache.path_of(identity).filter(|path| cache.is_own(path))?;
    let found = saved(&path, program, identity).ok()?;
    cache.used(&path);
    Some(found)
}

/// Keeps what took time to read. That it cannot be kept is no error: it is
/// read again then.
#[cfg(feature = "cli")]
fn keep(layouts: &mut Dwarf, identity: &Identity, options: &Options) {
    let Some(cache) = &options.cache else { return };
    // What is missing today may be there tomorrow.
    if layouts.detail() < Detail::Full || layouts.remark().is_some() {
        return;
    }
    let Some(path) = cache.path_of(identity) else { return };
    if let Ok((bytes, _)) = saved::write(layouts, &identity.key()) {
        let _ = cache.keep(&path, &bytes);
    }
}

fn saved(path: &Path, program: &Path, identity: &Identity) -> Result<Opened> {
    let key = identity.key();
    let layouts = Saved::open(path, |of| match of == key {
        true => Ok(()),
        false => Err(wrong_build(path, of, program, &key)),
    })?;
    Ok(Opened {
        layouts: Box::new(layouts),
        path: path.to_owned(),
        saved: true,
        remark: None,
        has_types: true,
    })
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
    stop: &Arc<AtomicBool>,
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
    let found = Dwarf::read(program, of, &packages, stop)?;
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

/// The program's names, each in each of the folders.
fn in_folders(folders: &[PathBuf], names: &[PathBuf]) -> Vec<PathBuf> {
    let mut kept = Vec::new();
    for folder in folders {
        for name in names.iter().filter_map(|name| name.file_name()) {
            let path = folder.join(name);
            if !kept.contains(&path) {
                kept.push(path);
            }
        }
    }
    kept
}

/// Saved layout files that are or may be the program's, surest first; the
/// folders are listed only if what is asked for by name was not right.
fn saved_files<'a>(
    names: &'a [PathBuf],
    identity: &Identity,
    folders: &'a [PathBuf],
) -> impl Iterator<Item = PathBuf> + use<'a> {
    let key = identity.key();
    let name = format!("{key}.taskprof");
    let beside = names.iter().map(|name| with_suffix(name, ".taskprof"));
    let kept = folders.iter().map(move |folder| folder.join(&name));
    // Without a build id and without code all programs would have one key.
    let told = identity.build_id.is_some() || identity.code.is_some();
    let listed = folders.iter().filter(move |_| told);
    let others = listed.flat_map(move |folder| of_build(folder, &key));
    beside.chain(kept).chain(others)
}

/// The layout files in a folder whose headers say that they are of this
/// build, in the order of their names.
fn of_build(folder: &Path, key: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries
        .take(LISTED)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "taskprof"))
        .collect();
    paths.sort_unstable();
    paths.truncate(HEADERS);
    // A fifo of that name would never answer.
    paths.retain(|path| path.is_file() && saved::key_of(path).is_some_and(|of| of == key));
    paths
}

/// Where a build id's debug file is in a folder of them.
fn by_build_id(folder: &Path, identity: &Identity) -> Option<PathBuf> {
    let id = identity.build_id.as_ref().filter(|id| id.len() > 2 && id.is_ascii())?;
    let (head, tail) = id.split_at(2);
    Some(folder.join(head).join(format!("{tail}.debug")))
}

/// Debug files in the folders that the user gave; `kept` are the program's
/// names there.
fn kept_debug_files(
    folders: &[PathBuf],
    kept: &[PathBuf],
    identity: &Identity,
) -> Vec<(PathBuf, Option<u32>)> {
    let mut files = Vec::new();
    for folder in folders {
        for store in [folder.clone(), folder.join(".build-id")] {
            files.extend(by_build_id(&store, identity).map(|path| (path, None)));
        }
        if let Some((link, sum)) = &identity.debug_link {
            files.push((folder.join(link), Some(*sum)));
        }
    }
    files.extend(kept.iter().map(|name| (with_suffix(name, ".debug"), None)));
    files
}

/// Debug files that may belong to a program, with the checksum that the
/// program knows of it.
fn debug_files(
    names: &[PathBuf],
    identity: &Identity,
    system: &Path,
) -> Vec<(PathBuf, Option<u32>)> {
    let mut files = Vec::new();
    files.extend(by_build_id(&system.join(".build-id"), identity).map(|path| (path, None)));
    for name in names {
        let Some(folder) = name.parent() else { continue };
        if let Some((link, sum)) = &identity.debug_link {
            let below = folder.strip_prefix("/").map(|inside| system.join(inside));
            files.push((folder.join(link), Some(*sum)));
            files.push((folder.join(".debug").join(link), Some(*sum)));
            files.extend(below.map(|below| (below.join(link), Some(*sum))));
        }
        files.push((with_suffix(name, ".debug"), None));
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
#[path = "locate_tests.rs"]
mod tests;
