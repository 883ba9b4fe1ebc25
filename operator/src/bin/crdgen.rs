//! `crdgen`: writes the CustomResourceDefinition into `crds/` and into the chart, under the folder
//! that it is given, or the current one.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sheaf_operator::resource::definition;

fn main() -> ExitCode {
    let root = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    match write(&root) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever closed the pipe does not want to know.
            let _ = writeln!(std::io::stderr(), "crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(root: &Path) -> Result<(), Box<dyn Error>> {
    for file in definition::files()? {
        let path = root.join(file.path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, file.text)
            .map_err(|error| format!("write {}: {error}", path.display()))?;
    }
    Ok(())
}
