//! Generates what `src` includes from the files in `proto`.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use prost::Message as _;

/// Each of these files becomes a module of its own, although they are one package.
const FILES: [&str; 3] = ["chunks", "peer", "statistics"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for file in FILES {
        let folder = out.join(file);
        fs::create_dir_all(&folder)?;
        let files = protox::compile([format!("sheaf/v1/{file}.proto")], ["proto"])?;
        fs::write(folder.join("descriptor.bin"), files.encode_to_vec())?;
        tonic_prost_build::configure()
            .bytes(".")
            // The same message always has the same bytes.
            .btree_map(".")
            // Some messages hold secrets, and what cannot be printed is not logged.
            .skip_debug(["."])
            // The program that connects chooses how.
            .build_transport(false)
            .out_dir(folder)
            .compile_fds(files)?;
    }
    Ok(())
}
