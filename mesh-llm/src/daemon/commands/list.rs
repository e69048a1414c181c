//! Tables: the catalog, and what is on disk.

use super::{Error, Out, size};
use crate::exit::Exit;
use crate::models::choice::fits;
use crate::models::download::Unfinished;
use crate::models::inventory::OnDisk;
use crate::models::library::{Library, find_entry};
use crate::models::places::Keeper;
use crate::models::removal::name_of;
use serde::Serialize;

#[derive(Serialize)]
struct CatalogRow {
    name: String,
    bytes: u64,
    fits: bool,
    on_disk: bool,
    draft: Option<String>,
    downloadable: bool,
}

/// Everything that is known by name, and whether it fits into so many bytes.
pub(super) fn catalog(library: &Library, memory: u64, out: Out) -> Result<Exit, Error> {
    let models = library.inventory();
    let rows: Vec<CatalogRow> = library
        .catalog
        .entries()
        .iter()
        .map(|entry| CatalogRow {
            name: entry.name.clone(),
            bytes: entry.bytes,
            fits: fits(entry.bytes, memory),
            on_disk: find_entry(&models, entry).is_some(),
            draft: entry.draft.clone(),
            downloadable: entry.source.is_some(),
        })
        .collect();
    out.rows(&["NAME", "SIZE", "FITS HERE", "ON DISK", "DRAFT"], &rows, |row| {
        let yes = |is: bool| if is { "yes" } else { "" }.to_owned();
        let on_disk = match row {
            CatalogRow { on_disk: true, .. } => "yes",
            CatalogRow {
                downloadable: false, ..
            } => "no address known",
            _ => "",
        };
        vec![
            row.name.clone(),
            size(row.bytes),
            yes(row.fits),
            on_disk.to_owned(),
            row.draft.clone().unwrap_or_default(),
        ]
    })?;
    Ok(Exit::DONE)
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    architecture: Option<&'a str>,
    parameters: Option<u64>,
    quantization: Option<&'a str>,
    context: Option<u64>,
    bytes: u64,
    keeper: String,
    path: String,
    error: Option<&'a str>,
    /// Of a download that has not come to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    download: Option<Download>,
}

/// How far a download is.
#[derive(Serialize)]
struct Download {
    done_bytes: u64,
    /// Whether a process works on it; else it was interrupted.
    running: bool,
}

impl<'a> Row<'a> {
    fn new(model: &'a OnDisk) -> Self {
        let about = model.about.as_ref().ok();
        Self {
            name: &model.found.name,
            architecture: about.map(|about| about.architecture.as_str()),
            parameters: about.map(|about| about.parameters),
            quantization: about.map(|about| about.quantization.as_str()),
            context: about.and_then(|about| about.context),
            bytes: model.bytes(),
            keeper: model.found.keeper.to_string(),
            path: model.found.path.display().to_string(),
            error: model.about.as_ref().err().map(String::as_str),
            download: None,
        }
    }

    fn of_download(name: &'a str, download: &Unfinished) -> Self {
        Self {
            name,
            architecture: None,
            parameters: None,
            quantization: None,
            context: None,
            bytes: download.total_bytes.unwrap_or(download.taken_bytes),
            keeper: Keeper::Store.to_string(),
            path: download.part.display().to_string(),
            error: None,
            download: Some(Download {
                done_bytes: download.done_bytes,
                running: download.is_running,
            }),
        }
    }

    /// What stands in the place of the architecture where there is none.
    fn state(&self) -> &'static str {
        match &self.download {
            Some(Download { running: true, .. }) => "downloading",
            Some(_) => "interrupted",
            None => "damaged",
        }
    }

    fn size(&self) -> String {
        match &self.download {
            Some(download) => format!("{} of {}", size(download.done_bytes), size(self.bytes)),
            None => size(self.bytes),
        }
    }
}

/// Everything on disk, and what there is of downloads that have not come to their end.
pub(super) fn on_disk(library: &Library, out: Out) -> Result<Exit, Error> {
    let models = library.inventory();
    let downloads = library.unfinished();
    let names: Vec<String> = downloads.iter().map(name_of).collect();
    let unfinished = names.iter().zip(&downloads);
    let rows: Vec<Row<'_>> = models
        .iter()
        .map(Row::new)
        .chain(unfinished.map(|(name, download)| Row::of_download(name, download)))
        .collect();
    let headings = [
        "NAME",
        "ARCHITECTURE",
        "PARAMETERS",
        "QUANTIZATION",
        "CONTEXT",
        "SIZE",
        "KEPT BY",
        "FILE",
    ];
    out.rows(&headings, &rows, |row| {
        vec![
            row.name.to_owned(),
            row.architecture.unwrap_or(row.state()).to_owned(),
            row.parameters.map(count).unwrap_or_default(),
            row.quantization.unwrap_or_default().to_owned(),
            row.context.map(|context| context.to_string()).unwrap_or_default(),
            row.size(),
            row.keeper.clone(),
            row.path.clone(),
        ]
    })?;
    Ok(Exit::DONE)
}

/// A number of parameters as models are named by: `8.2B`, `135M`.
fn count(number: u64) -> String {
    let number = number as f64;
    match number {
        _ if number >= 99.5e9 => format!("{:.0}B", number / 1e9),
        _ if number >= 1e9 => format!("{:.1}B", number / 1e9),
        _ if number >= 1e6 => format!("{:.0}M", number / 1e6),
        _ => format!("{:.0}K", number / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_counted_as_models_are_named() {
        for (number, text) in [
            (8_190_735_360, "8.2B"),
            (405_000_000_000, "405B"),
            (494_032_768, "494M"),
            (12_000, "12K"),
        ] {
            assert_eq!(count(number), text);
        }
    }
}
