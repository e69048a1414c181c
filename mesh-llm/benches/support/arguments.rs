//! The form that all benches have: `just bench-NAME [--quick] [--json FILE] [CASE]…`.

use std::path::PathBuf;

/// What every bench is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Measures less of everything: the whole bench takes a few minutes
    #[arg(long)]
    pub quick: bool,

    /// Writes the rows to this file, too, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Measures only these cases, to look at one of them [default: all]
    #[arg(value_name = "CASE")]
    pub cases: Vec<String>,

    /// Cargo says this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    /// Whether the case is to be measured.
    pub fn wants(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|wanted| wanted == case)
    }

    /// Whether one of the words is the case's name, or its beginning up to a hyphen.
    pub fn wants_part(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|word| is_part(word, case))
    }

    /// Checks that each word is such a part of a name.
    ///
    /// # Errors
    /// With all names, where one is not.
    pub fn check_parts(&self, names: &[&str]) -> anyhow::Result<()> {
        let unknown = |word: &&String| !names.iter().any(|name| is_part(word, name));
        if let Some(word) = self.cases.iter().find(unknown) {
            anyhow::bail!("there is no case {word}, but {}", names.join(", "));
        }
        Ok(())
    }

    /// One of two numbers: how much is measured by `--quick`, and how much otherwise.
    pub fn amount<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

fn is_part(word: &str, name: &str) -> bool {
    name.strip_prefix(word)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}
