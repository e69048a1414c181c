//! The model inside the binary, which is put on disk because llama.cpp reads files.

use super::choice::{Choice, TINY};
use super::{Error, Model};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// Its file; see `assets/` for where it comes from.
static BYTES: &[u8] = include_bytes!("../../assets/mesh-tiny.gguf");

const FILE_NAME: &str = "mesh-tiny.gguf";

/// The model, its file in the folder `store`.
pub(super) fn model(store: &Path, choice: Choice) -> Result<Model, Error> {
    let path = store.join(FILE_NAME);
    // A file that cannot be read is replaced like one that differs; if that fails, too, it is told.
    if !holds(&path, BYTES).unwrap_or(false) {
        place(store, &path).map_err(|cause| Error::Unwritable {
            path: path.clone(),
            cause,
        })?;
    }
    Ok(Model {
        path,
        id: TINY.to_owned(),
        choice,
    })
}

/// Whether the file holds exactly these bytes.
fn holds(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() != bytes.len() as u64 {
        return Ok(false);
    }
    let mut buffer = vec![0; 64 << 10];
    for expected in bytes.chunks(buffer.len()) {
        let read = &mut buffer[..expected.len()];
        file.read_exact(read)?;
        if read != expected {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the file so that nobody ever sees a part of it.
fn place(store: &Path, path: &Path) -> io::Result<()> {
    fs::create_dir_all(store)?;
    let mut file = tempfile::NamedTempFile::new_in(store)?;
    file.as_file_mut().write_all(BYTES)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_once_and_repaired_when_it_differs() {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("models");
        let written = || {
            let model = model(&store, Choice::Named).unwrap();
            assert!(holds(&model.path, BYTES).unwrap());
            fs::metadata(&model.path).unwrap().modified().unwrap()
        };
        let first = written();
        assert_eq!(written(), first);
        let path = store.join(FILE_NAME);
        fs::write(&path, &BYTES[..1000]).unwrap();
        written();
        let mut damaged = BYTES.to_vec();
        damaged[70_000] ^= 1;
        fs::write(&path, damaged).unwrap();
        written();
        assert_eq!(
            fs::read_dir(&store).unwrap().count(),
            1,
            "a temporary file was left"
        );
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("models");
        fs::write(&store, "a file in the way").unwrap();
        let error = model(&store, Choice::Named).unwrap_err().to_string();
        assert!(
            error.contains(store.to_str().unwrap()) && error.contains("MESH_LLM_HOME"),
            "{error}"
        );
    }
}
