//! Layouts that were read once are kept for the next dump of the same program:
//! saved layout files in a folder of the user's own, the oldest of which go.
//!
//! ```text
//! $XDG_CACHE_HOME/taskprof/BUILDID-READER.taskprof     folder 0700, files 0600
//! ```
//!
//! `READER` is the build of this program: another one may see more in the same
//! debug information.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::identity::Identity;
use crate::debuginfo::symbols::own_executable;

/// Files that are kept, and their bytes together.
const FILES: usize = 64;
const BYTES: u64 = 256 << 20;

/// A folder of layouts.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The user's own; `None` if there is no home for it.
    pub fn of_user() -> Option<Self> {
        let absolute =
            |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches =
            absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        Some(Self::at(caches.join("taskprof")))
    }

    /// One in this folder.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the layouts of a program are kept; `None` for a program without a
    /// build id: nothing else tells builds apart for sure.
    pub(super) fn path_of(&self, identity: &Identity) -> Option<PathBuf> {
        let id = identity.build_id.as_ref()?;
        let reader = Identity::of(&own_executable()).ok()?.key();
        let reader = reader.get(..16).unwrap_or(&reader);
        Some(self.folder.join(format!("{id}-{reader}.taskprof")))
    }

    /// Whether a file there may be read: nobody else has written it.
    pub(super) fn is_own(&self, path: &Path) -> bool {
        let own = |found: Metadata| uid().is_some_and(|uid| found.uid() == uid);
        fs::metadata(&self.folder).is_ok_and(own)
            && fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && own(found))
    }

    /// Notes that a file was of use: it goes later than others.
    pub(super) fn used(&self, path: &Path) {
        let now = SystemTime::now();
        let _ = File::options().write(true).open(path).and_then(|file| file.set_modified(now));
    }

    /// Keeps a file, and lets the oldest go if there are too many then.
    ///
    /// # Errors
    /// Those of writing it; `PermissionDenied` in a folder of somebody else.
    pub(super) fn keep(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        if Some(fs::metadata(&self.folder)?.uid()) != uid() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // Renamed when it is whole: a reader never sees half of it.
        let part = path.with_extension(format!("{}.part", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&part, path));
        if written.is_err() {
            let _ = fs::remove_file(&part);
        }
        written?;
        self.let_go()
    }

    fn let_go(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = fs::read_dir(&self.folder)?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let found = entry.metadata().ok().filter(Metadata::is_file)?;
                Some((found.modified().ok()?, found.len(), entry.path()))
            })
            .collect();
        files.sort_unstable_by(|one, other| other.cmp(one));
        let mut bytes = 0_u64;
        for (at, (_, len, path)) in files.iter().enumerate() {
            bytes = bytes.saturating_add(*len);
            if at >= FILES || bytes > BYTES {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// The user that this process acts for.
fn uid() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|found| found.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: &str) -> Identity {
        Identity { build_id: Some(id.to_owned()), ..Identity::default() }
    }

    #[test]
    fn files_are_for_the_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("taskprof"));
        let path = cache.path_of(&identity("0123")).unwrap();
        assert!(!cache.is_own(&path));
        cache.keep(&path, b"bytes").unwrap();
        cache.keep(&path, b"other").unwrap();
        assert!(cache.is_own(&path));
        assert_eq!(fs::read(&path).unwrap(), b"other");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&cache.folder), mode(&path)), (0o700, 0o600));
        assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), 1);
        // A link leads out of the folder.
        let link = cache.path_of(&identity("4567")).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(!cache.is_own(&link));
        // Without a build id there is nothing to go by.
        assert_eq!(cache.path_of(&Identity::default()), None);
    }

    #[test]
    fn of_too_many_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_owned());
        let path = |number: usize| cache.path_of(&identity(&number.to_string())).unwrap();
        for number in 0..FILES {
            cache.keep(&path(number), b"").unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number as u64);
            File::options().write(true).open(path(number)).unwrap().set_modified(time).unwrap();
        }
        cache.used(&path(0));
        cache.keep(&path(FILES), b"").unwrap();
        assert!(path(0).exists() && !path(1).exists() && path(2).exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), FILES);
    }
}
