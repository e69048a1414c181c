//! Verifies the content of models: their form, and their SHA-256 where one is known.

use super::{Error, Out};
use crate::exit::Exit;
use crate::models::check::{Verdict, check as verify};
use crate::models::library::Library;
use serde::Serialize;

#[derive(Serialize)]
struct Row {
    name: String,
    verdict: &'static str,
    sha256: bool,
    detail: String,
}

/// Checks one model or all, and ends with [`Exit::MODEL`] where one is damaged.
pub(super) fn check(library: &Library, words: Option<&str>, out: Out) -> Result<Exit, Error> {
    let models = match words {
        Some(words) => vec![library.on_disk(words)?],
        None => library.inventory(),
    };
    let digests = library.memory().digests();
    let rows: Vec<Row> = models
        .iter()
        .map(|model| {
            let name = model.found.name.clone();
            match verify(model, &digests) {
                Verdict::Same => Row {
                    name,
                    verdict: "sound",
                    sha256: true,
                    detail: "its content is what was published".to_owned(),
                },
                Verdict::WellFormed => Row {
                    name,
                    verdict: "sound",
                    sha256: false,
                    detail: "its form is right; what its content should be is not known".to_owned(),
                },
                Verdict::Damaged(what) => Row {
                    name,
                    verdict: "damaged",
                    sha256: false,
                    detail: format!("{what}; remove it and download it again"),
                },
            }
        })
        .collect();
    let damaged = rows.iter().any(|row| row.verdict == "damaged");
    out.rows(&["NAME", "VERDICT", "DETAIL"], &rows, |row| {
        vec![row.name.clone(), row.verdict.to_owned(), row.detail.clone()]
    })?;
    Ok(if damaged { Exit::MODEL } else { Exit::DONE })
}
