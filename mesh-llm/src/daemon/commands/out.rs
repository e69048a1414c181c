//! Standard output: a table for people, an object a line for programs.

use comfy_table::{Table, presets};
use indicatif::DecimalBytes;
use llama_engine::server::options::LogFormat;
use serde::Serialize;
use std::io::{self, Write};

/// Standard output cannot be written to.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written to: {0}; give it a place to go")]
pub(super) struct OutputError(io::Error);

/// Standard output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Out {
    /// The form of what is written.
    pub(super) format: LogFormat,
}

impl Out {
    /// Writes a list.
    pub(super) fn rows<R: Serialize>(
        self,
        headings: &[&str],
        rows: &[R],
        cells: impl Fn(&R) -> Vec<String>,
    ) -> Result<(), OutputError> {
        let text = match self.format {
            LogFormat::Text => table(headings, rows.iter().map(cells)),
            LogFormat::Json => rows.iter().map(json).collect(),
        };
        self.text(&text)
    }

    /// Writes what has its form already.
    pub(super) fn text(self, text: &str) -> Result<(), OutputError> {
        match self.write(text) {
            // Whoever reads has seen enough: `mesh-llm models | head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(OutputError),
        }
    }

    /// Writes, and tells if nobody reads any more.
    pub(super) fn write(self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

/// A table without lines.
pub(super) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings);
    for row in rows {
        table.add_row(row);
    }
    format!("{}\n", table.trim_fmt())
}

/// An object, and the end of its line.
pub(super) fn json(value: &impl Serialize) -> String {
    // What is listed has string keys: it can be written.
    serde_json::to_string(value).map_or_else(|_| String::new(), |line| line + "\n")
}

/// A length for people.
pub(super) fn size(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}
