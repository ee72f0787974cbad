//! Writing files so that each is there whole or not at all.
//!
//! Bytes go to a temporary file beside the target, are flushed to the disk, and only then take the target's name.
//! Whatever stops the writing (a full disk, a killed program) leaves the target as it was.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a file was not written. Each message starts with the path and ends with the cure.
///
/// The messages carry their cause in words, so printing the error alone is enough.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The file is there already and may not be replaced.
    #[error("{}: already exists; pass --overwrite to replace it", path.display())]
    Exists {
        /// The file that was to be written.
        path: PathBuf,
    },
    /// The path names a folder, a device or nothing at all.
    #[error("{}: is not a plain file; choose another name", path.display())]
    NotAFile {
        /// The path that was to be written.
        path: PathBuf,
    },
    /// The folder to write into is missing.
    #[error("{}: there is no folder {}; create it first", path.display(), folder.display())]
    NoFolder {
        /// The file that was to be written.
        path: PathBuf,
        /// The folder that is missing.
        folder: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: cannot be written: {}; {}", path.display(), reason(cause), write_cure(cause))]
    Io {
        /// The file that was to be written.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
}

/// What went wrong, in words: the system's own text, except where that is easily misread.
pub(crate) fn reason(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        io::ErrorKind::QuotaExceeded => "the disk quota is used up".to_owned(),
        _ => cause.to_string(),
    }
}

fn write_cure(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space or write elsewhere",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "write to a folder that you may change"
        }
        _ => "try another folder",
    }
}

/// Checks, before the work, that a file could be written: its folder exists and nothing would be replaced unasked.
///
/// # Errors
///
/// [`WriteError::NoFolder`], [`WriteError::NotAFile`], or [`WriteError::Exists`] unless `overwrite`.
pub fn check_output(path: &Path, overwrite: bool) -> Result<(), WriteError> {
    if path.file_name().is_none() {
        return Err(WriteError::NotAFile { path: path.to_owned() });
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        return Err(WriteError::NoFolder { path: path.to_owned(), folder: folder.to_owned() });
    }
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(WriteError::NotAFile { path: path.to_owned() }),
        Ok(_) if !overwrite => Err(WriteError::Exists { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// Writes `bytes` to `path`, whole or not at all.
///
/// # Errors
///
/// As [`check_output`], and [`WriteError::Io`] when the system refuses. On any error the folder is left as it was.
pub fn atomic_write(path: &Path, bytes: &[u8], overwrite: bool) -> Result<(), WriteError> {
    atomic_write_with(path, overwrite, |file| file.write_all(bytes))
}

/// Like [`atomic_write`] for contents too large to hold in memory: `write` fills the temporary file.
///
/// # Errors
///
/// As [`atomic_write`]; an error of `write` comes back as [`WriteError::Io`].
pub fn atomic_write_with(
    path: &Path,
    overwrite: bool,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), WriteError> {
    let mut beside = Beside::create(path, overwrite)?;
    write(beside.file_mut()).map_err(|cause| WriteError::Io { path: path.to_owned(), cause })?;
    beside.finish()
}

/// How the names of files that are being written begin and end.
const PREFIX: &str = ".earthmapper-";
const SUFFIX: &str = ".part";

/// A file that is being written beside its place, and takes its name only by [`Beside::finish`]. Dropped before, it
/// leaves nothing.
pub(crate) struct Beside {
    path: PathBuf,
    target: PathBuf,
    overwrite: bool,
    temporary: tempfile::NamedTempFile,
}

impl Beside {
    /// An empty temporary file in the folder of `path`.
    ///
    /// # Errors
    ///
    /// As [`atomic_write`].
    pub(crate) fn create(path: &Path, overwrite: bool) -> Result<Self, WriteError> {
        check_output(path, overwrite)?;
        let failed = |cause| WriteError::Io { path: path.to_owned(), cause };
        // Replacing a link would leave the file it points to untouched, which is not what "overwrite" promises.
        let target = if path.is_symlink() && path.exists() {
            fs::canonicalize(path).map_err(failed)?
        } else {
            path.to_owned()
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).suffix(SUFFIX);
        allow_others_to_read(&mut builder);
        let temporary = builder.tempfile_in(folder_of(&target)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), target, overwrite, temporary })
    }

    pub(crate) fn file_mut(&mut self) -> &mut File {
        self.temporary.as_file_mut()
    }

    /// Where the bytes are until the end.
    pub(crate) fn temporary_path(&self) -> &Path {
        self.temporary.path()
    }

    /// Flushes the file to the disk and gives it its name.
    ///
    /// # Errors
    ///
    /// As [`atomic_write`].
    pub(crate) fn finish(self) -> Result<(), WriteError> {
        let Self { path, target, overwrite, temporary } = self;
        let failed = |cause| WriteError::Io { path: path.clone(), cause };
        if let Ok(replaced) = fs::metadata(&target) {
            temporary.as_file().set_permissions(replaced.permissions()).map_err(failed)?;
        }
        temporary.as_file().sync_all().map_err(failed)?;
        let renamed =
            if overwrite { temporary.persist(&target) } else { temporary.persist_noclobber(&target) };
        renamed.map_err(|refused| match refused.error.kind() {
            io::ErrorKind::AlreadyExists => WriteError::Exists { path: path.clone() },
            _ => failed(refused.error),
        })?;
        flush_folder(folder_of(&target));
        Ok(())
    }
}

/// Removes files that a killed program was writing in a folder. The caller must know that no other program writes there.
pub(crate) fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            fs::remove_file(entry)?;
        }
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Temporary files are private to their owner by default; an output should follow the user's umask instead.
#[cfg(unix)]
fn allow_others_to_read(builder: &mut tempfile::Builder<'_, '_>) {
    use std::os::unix::fs::PermissionsExt;
    builder.permissions(fs::Permissions::from_mode(0o666));
}

#[cfg(not(unix))]
fn allow_others_to_read(_: &mut tempfile::Builder<'_, '_>) {}

/// Makes the rename itself survive a power cut. The file is complete either way, so a refusal is no failure.
fn flush_folder(folder: &Path) {
    if cfg!(unix) {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_in(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_only_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        atomic_write(&path, b"one", false).unwrap();
        let error = atomic_write(&path, b"two", false).unwrap_err();
        assert!(matches!(error, WriteError::Exists { .. }));
        assert_eq!(
            error.to_string(),
            format!("{}: already exists; pass --overwrite to replace it", path.display())
        );
        assert_eq!(fs::read(&path).unwrap(), b"one");
        atomic_write(&path, b"two", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names_in(folder.path()), ["a.json"]);
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        fs::write(&path, b"old").unwrap();
        let error = atomic_write_with(&path, true, |file| {
            file.write_all(b"half of the")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert!(error.to_string().starts_with(&path.display().to_string()));
        assert!(
            error
                .to_string()
                .ends_with("cannot be written: the disk is full; free some space or write elsewhere"),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names_in(folder.path()), ["a.bin"]);
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        let error = atomic_write_with(&path, false, |_| fs::write(&path, b"theirs")).unwrap_err();
        assert!(matches!(error, WriteError::Exists { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert_eq!(names_in(folder.path()), ["a.bin"]);
    }

    #[test]
    fn folders_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let error = atomic_write(&folder.path().join("missing/a.png"), b"x", false).unwrap_err();
        assert!(matches!(error, WriteError::NoFolder { .. }));
        assert!(error.to_string().ends_with("missing; create it first"), "{error}");
        for overwrite in [false, true] {
            let error = atomic_write(folder.path(), b"x", overwrite).unwrap_err();
            assert!(matches!(error, WriteError::NotAFile { .. }), "{error}");
        }
        assert!(matches!(check_output(Path::new(""), false), Err(WriteError::NotAFile { .. })));
        assert!(check_output(Path::new("in-the-current-folder"), false).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn links_devices_and_permissions_are_respected() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        assert!(matches!(check_output(Path::new("/dev/null"), true), Err(WriteError::NotAFile { .. })));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let link = folder.path().join("link");
        let plain = folder.path().join("plain");
        fs::write(&plain, b"").unwrap();
        atomic_write(&path, b"one", false).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), mode(&plain), "a new file follows the umask");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&path, &link).unwrap();
        atomic_write(&link, b"two", true).unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(mode(&path), 0o640);
    }
}
