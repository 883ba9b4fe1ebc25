//! Folders that are still there after a power cut.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Makes `folder`, and the folders above it, where they are missing; the name of each
/// is durable.
///
/// # Errors
/// When a folder cannot be made, or the one above it cannot be synced.
pub fn create(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = match folder.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create(above)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync(above)
}

/// Makes durable which names a folder has.
///
/// # Errors
/// When it cannot be opened or synced.
pub fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_folders_are_made_and_present_ones_left_alone() -> io::Result<()> {
        let place = tempfile::tempdir()?;
        let folder = place.path().join("a/b");
        create(&folder)?;
        fs::write(folder.join("file"), "x")?;
        create(&folder)?;
        assert!(folder.join("file").exists());
        assert!(create(&folder.join("file/c")).is_err());
        Ok(())
    }
}
