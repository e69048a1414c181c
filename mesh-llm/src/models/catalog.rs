//! Models by name: a table inside the binary, and one in the state directory that adds to it or
//! replaces rows of it. Pure.

use super::spelling;
use std::collections::HashSet;
use std::path::PathBuf;

/// The table inside the binary.
const EMBEDDED: &str = include_str!("../../assets/catalog.tsv");

/// The name of the file in the state directory.
pub const FILE_NAME: &str = "catalog.tsv";

/// A model that is known by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// About how large its files are.
    pub bytes: u64,
    /// Where it comes from, where that is known.
    pub source: Option<Source>,
    /// The name of a small model that guesses its words ahead.
    pub draft: Option<String>,
    /// Whether only some of its weights are used for each token.
    pub mixture_of_experts: bool,
}

/// Where a model's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `org/repo` at Hugging Face.
    pub repository: String,
    /// Its files, in the order of a split model's parts.
    pub files: Vec<String>,
}

impl Source {
    /// The name of the first file, without the folders that it is in.
    pub fn file_name(&self) -> Option<&str> {
        self.files.first()?.rsplit('/').next()
    }
}

/// All models that are known by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    entries: Vec<Entry>,
}

/// What is wrong with a table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}:{line}: {fault}; correct the line, or remove the file", path.display())]
pub struct Error {
    path: PathBuf,
    line: usize,
    fault: Fault,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum Fault {
    #[error(
        "the first line must be the names of the columns, `name`, `size`, `hf_repo` and `file` among them, with tabs between"
    )]
    Heading,
    #[error("the row has no name")]
    NoName,
    #[error("the name {0} is there twice")]
    Twice(String),
    #[error("the size is `{0}`, but must be like `4.7GB` or `800MB`")]
    Size(String),
    #[error("the repository is `{0}`, but must be like `org/repo`, with a file")]
    Source(String),
    #[error("`extra_parts` is `{0}`, but must be a number, and the file's name end in -00001-of-0000N.gguf")]
    Parts(String),
}

impl Catalog {
    /// The embedded table, and over it one of the user's, if there is one.
    ///
    /// # Errors
    /// Where the user's table cannot be understood.
    pub fn new(users: Option<(PathBuf, &str)>) -> Result<Self, Error> {
        let mut entries = read(EMBEDDED).map_err(|(line, fault)| Error {
            path: FILE_NAME.into(),
            line,
            fault,
        })?;
        if let Some((path, table)) = users {
            let more = read(table).map_err(|(line, fault)| Error { path, line, fault })?;
            for entry in more {
                match entries.iter_mut().find(|known| known.name == entry.name) {
                    Some(known) => *known = entry,
                    None => entries.push(entry),
                }
            }
        }
        Ok(Self { entries })
    }

    /// All entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries that may be meant by a name: one, or several where it cannot be told.
    pub fn find(&self, name: &str) -> Vec<&Entry> {
        spelling::best(name, &self.entries, |entry| &entry.name)
    }

    /// The entry of this very name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

/// Where each column is; those that are not there are empty in each row.
struct Columns<'a>(Vec<&'a str>);

impl<'a> Columns<'a> {
    fn get<'row>(&self, row: &[&'row str], name: &str) -> &'row str {
        let column = self.0.iter().position(|column| *column == name);
        column
            .and_then(|column| row.get(column))
            .copied()
            .unwrap_or("")
            .trim()
    }
}

fn read(table: &str) -> Result<Vec<Entry>, (usize, Fault)> {
    let mut lines = (1..)
        .zip(table.lines())
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let heading = lines.next().map_or("", |(_, line)| line);
    let columns = Columns(heading.split('\t').map(str::trim).collect());
    if !["name", "size", "hf_repo", "file"]
        .iter()
        .all(|name| columns.0.contains(name))
    {
        return Err((1, Fault::Heading));
    }
    let mut names = HashSet::new();
    let mut entries = Vec::new();
    for (number, line) in lines {
        let row: Vec<&str> = line.split('\t').collect();
        let entry = entry(&columns, &row).map_err(|fault| (number, fault))?;
        if !names.insert(entry.name.clone()) {
            return Err((number, Fault::Twice(entry.name)));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(columns: &Columns<'_>, row: &[&str]) -> Result<Entry, Fault> {
    let get = |name| columns.get(row, name);
    let (name, size, draft) = (get("name"), get("size"), get("draft"));
    if name.is_empty() {
        return Err(Fault::NoName);
    }
    Ok(Entry {
        name: name.to_owned(),
        bytes: bytes(size).ok_or_else(|| Fault::Size(size.to_owned()))?,
        source: source(get("hf_repo"), get("file"), get("extra_parts"))?,
        draft: (!draft.is_empty()).then(|| draft.to_owned()),
        mixture_of_experts: !get("moe").is_empty(),
    })
}

/// `4.7GB` and the like, in powers of ten.
fn bytes(size: &str) -> Option<u64> {
    let (number, unit) = size.split_at(size.find(|c: char| c.is_ascii_alphabetic())?);
    let unit = match unit.to_ascii_uppercase().as_str() {
        "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        _ => return None,
    };
    let number: f64 = number.trim().parse().ok()?;
    (number > 0.0 && number < 1e6).then_some((number * unit) as u64)
}

fn source(repository: &str, file: &str, extra_parts: &str) -> Result<Option<Source>, Fault> {
    if repository.is_empty() && file.is_empty() {
        return Ok(None);
    }
    let sound = repository.split('/').filter(|part| !part.is_empty()).count() == 2
        && super::reference::is_inside(file)
        && file.ends_with(".gguf");
    if !sound {
        return Err(Fault::Source(repository.to_owned()));
    }
    let wrong = || Fault::Parts(extra_parts.to_owned());
    let extra: u32 = match extra_parts {
        "" => 0,
        number => number.parse().map_err(|_| wrong())?,
    };
    let files = if extra == 0 {
        vec![file.to_owned()]
    } else {
        let parts = extra + 1;
        let base = file
            .strip_suffix(&format!("-00001-of-{parts:05}.gguf"))
            .ok_or_else(wrong)?;
        (1..=parts)
            .map(|part| format!("{base}-{part:05}-of-{parts:05}.gguf"))
            .collect()
    };
    Ok(Some(Source {
        repository: repository.to_owned(),
        files,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_table_is_sound() {
        let catalog = Catalog::new(None).unwrap();
        assert!(catalog.entries().len() >= 35);
        for entry in catalog.entries() {
            assert!(
                (100_000_000..1_000_000_000_000).contains(&entry.bytes),
                "{entry:?}"
            );
            if let Some(draft) = &entry.draft {
                let draft = catalog.entry(draft).expect("the draft is in the catalog");
                assert!(
                    draft.bytes < entry.bytes / 2,
                    "{} drafts for {}",
                    draft.name,
                    entry.name
                );
                assert!(draft.source.is_some());
            }
            // By its own name, nothing but the model itself is found.
            assert_eq!(catalog.find(&entry.name), [entry]);
        }
    }

    #[test]
    fn names_are_found_in_any_spelling_and_nothing_is_guessed() {
        let catalog = Catalog::new(None).unwrap();
        let found = |name| -> Vec<String> {
            catalog
                .find(name)
                .iter()
                .map(|entry| entry.name.clone())
                .collect()
        };
        assert_eq!(found("Qwen3-8B"), ["Qwen3-8B-Q4_K_M"]);
        assert_eq!(found("Qwen2.5-32B"), ["Qwen2.5-32B-Instruct-Q4_K_M"]);
        assert_eq!(found("qwen2.5 32b"), ["Qwen2.5-32B-Instruct-Q4_K_M"]);
        assert!(found("32b").len() > 3);
        assert!(found("nothing").is_empty());
    }

    #[test]
    fn a_row_of_the_user_adds_or_replaces() {
        let table =
            "name\tsize\thf_repo\tfile\nMine\t1GB\tme/mine\tmine.gguf\nQwen3-8B-Q4_K_M\t5GB\tme/q\tq.gguf\n";
        let catalog = Catalog::new(Some(("c.tsv".into(), table))).unwrap();
        assert_eq!(catalog.find("mine")[0].bytes, 1_000_000_000);
        let replaced = catalog.entry("Qwen3-8B-Q4_K_M").unwrap();
        assert_eq!(replaced.source.as_ref().unwrap().repository, "me/q");
        assert_eq!(
            catalog.entries().len(),
            Catalog::new(None).unwrap().entries().len() + 1
        );
    }

    #[test]
    fn a_split_model_has_all_its_parts() {
        let files = source("a/b", "x/y-00001-of-00003.gguf", "2")
            .unwrap()
            .unwrap()
            .files;
        assert_eq!(
            files,
            [
                "x/y-00001-of-00003.gguf",
                "x/y-00002-of-00003.gguf",
                "x/y-00003-of-00003.gguf"
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let heading = "name\tsize\thf_repo\tfile\textra_parts\n";
        for (rows, line, words) in [
            ("a\t1GB\tx/y\tz.gguf\na\t1GB\tx/y\tz.gguf\n", 3, "twice"),
            ("a\tbig\tx/y\tz.gguf\n", 2, "`big`"),
            ("# comment\n\na\t1GB\tx\tz.gguf\n", 4, "org/repo"),
            ("a\t1GB\tx/y\t../z.gguf\n", 2, "org/repo"),
            ("a\t1GB\tx/y\tz.gguf\t3\n", 2, "00001"),
            ("\t1GB\tx/y\tz.gguf\n", 2, "no name"),
        ] {
            let table = format!("{heading}{rows}");
            let told = Catalog::new(Some(("c.tsv".into(), &table)))
                .unwrap_err()
                .to_string();
            assert!(
                told.starts_with(&format!("c.tsv:{line}: ")) && told.contains(words),
                "{told}"
            );
        }
        assert!(Catalog::new(Some(("c.tsv".into(), "oops"))).is_err());
    }
}
