//! The model inside the binary, and the draft model for it, which are put on disk because llama.cpp reads files.

use super::choice::{Choice, TINY};
use super::{Error, Model};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// A file inside the binary; see `assets/` for where they come from.
struct Embedded {
    name: &'static str,
    bytes: &'static [u8],
}

static MODEL: Embedded = Embedded {
    name: "mesh-tiny.gguf",
    bytes: include_bytes!("../../assets/mesh-tiny.gguf"),
};

static DRAFT: Embedded = Embedded {
    name: "mesh-tiny-draft.gguf",
    bytes: include_bytes!("../../assets/mesh-tiny-draft.gguf"),
};

/// What the draft model is called.
const DRAFT_ID: &str = "tiny-draft";

/// The model, its file in the folder `store`.
pub(super) fn model(store: &Path, choice: Choice) -> Result<Model, Error> {
    MODEL.put(store, TINY, choice)
}

/// The draft model that guesses ahead for it, its file in the folder `store`.
pub(super) fn draft(store: &Path) -> Result<Model, Error> {
    DRAFT.put(store, DRAFT_ID, Choice::Named)
}

/// Whether this is the embedded model, its file in the folder `store`.
pub(super) fn is_it(model: &Model, store: &Path) -> bool {
    model.path == store.join(MODEL.name)
}

impl Embedded {
    /// The file in `store`, written if need be.
    fn put(&self, store: &Path, id: &str, choice: Choice) -> Result<Model, Error> {
        let path = store.join(self.name);
        // A file that cannot be read is replaced like one that differs; if that fails, too, it is told.
        if !holds(&path, self.bytes).unwrap_or(false) {
            place(store, &path, self.bytes).map_err(|cause| Error::Unwritable {
                path: path.clone(),
                cause,
            })?;
        }
        Ok(Model {
            path,
            id: id.to_owned(),
            choice,
        })
    }
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
fn place(store: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(store)?;
    let mut file = tempfile::NamedTempFile::new_in(store)?;
    file.as_file_mut().write_all(bytes)?;
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
            assert!(holds(&model.path, MODEL.bytes).unwrap());
            fs::metadata(&model.path).unwrap().modified().unwrap()
        };
        let first = written();
        assert_eq!(written(), first);
        let path = store.join(MODEL.name);
        fs::write(&path, &MODEL.bytes[..1000]).unwrap();
        written();
        let mut damaged = MODEL.bytes.to_vec();
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
    fn the_draft_model_lies_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("models");
        let (model, draft) = (model(&store, Choice::Named).unwrap(), draft(&store).unwrap());
        assert!(holds(&draft.path, DRAFT.bytes).unwrap());
        assert_eq!(draft.path.parent(), model.path.parent());
        assert!(is_it(&model, &store) && !is_it(&draft, &store));
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
