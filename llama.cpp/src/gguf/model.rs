//! A model in one GGUF file or in several parts.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Error, Fault, Gguf, Metadata, Opened, Tensor};

/// Metadata keys of a model in parts.
pub(super) const SPLIT_NUMBER: &str = "split.no";
pub(super) const SPLIT_COUNT: &str = "split.count";
pub(super) const SPLIT_TENSORS: &str = "split.tensors.count";

/// Those keys: all that the first part's metadata says about how a model is divided.
pub const SPLIT_KEYS: [&str; 3] = [SPLIT_NUMBER, SPLIT_COUNT, SPLIT_TENSORS];

/// The most parts that a name can count: five digits.
const PART_LIMIT: u32 = 99_999;

/// A model: its first file, which has the metadata, and its further parts, if it has any.
#[derive(Clone, PartialEq, Debug)]
pub struct Model {
    parts: Vec<Gguf>,
    /// Each tensor's part and position there, sorted by name.
    by_name: Vec<(u32, u32)>,
}

/// Where a tensor's data is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Location<'a> {
    /// Which part of the model has it, counted from zero.
    pub part: usize,
    /// That part's file.
    pub file: &'a Path,
    /// Its entry in that file's tensor table; offset and size count from the beginning of that file.
    pub tensor: &'a Tensor,
}

impl Location<'_> {
    /// The tensor's data.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] where the file cannot be read.
    pub fn read(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; usize::try_from(self.tensor.bytes).unwrap_or(usize::MAX)];
        let read = |bytes: &mut [u8]| {
            let mut file = File::open(self.file)?;
            file.seek(SeekFrom::Start(self.tensor.offset))?;
            file.read_exact(bytes)
        };
        read(&mut bytes).map_err(|source| Error::Read {
            file: self.file.to_owned(),
            source,
        })?;
        Ok(bytes)
    }
}

impl Model {
    /// Reads the headers of a model, given its only file or its first part, and checks that all parts
    /// are there and belong together.
    ///
    /// # Errors
    ///
    /// Those of [`Gguf::open`] for each part, and where parts are missing or do not fit each other.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_each(path.as_ref(), &mut drop)
    }

    /// Like [`open`](Self::open), and hands over the parts' files in their order, for who reads tensors
    /// from the very files whose headers these are, whatever their names lead to later.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_and_keep(path: &Path) -> Result<(Self, Vec<Opened>), Error> {
        let mut files = Vec::new();
        let model = Self::open_each(path, &mut |file| files.push(file))?;
        Ok((model, files))
    }

    fn open_each(path: &Path, keep: &mut dyn FnMut(Opened)) -> Result<Self, Error> {
        let mut open = |path: &Path| {
            Gguf::open_and_keep(path).map(|(gguf, file)| {
                keep(file);
                gguf
            })
        };
        let first = open(path)?;
        let count = first.get::<u32>(SPLIT_COUNT)?.unwrap_or(1);
        if count <= 1 {
            return Self::join(vec![first]);
        }
        let names = part_names(&first, count)?;
        let missing: Vec<PathBuf> = names
            .iter()
            .skip(1)
            .filter(|name| !name.exists())
            .cloned()
            .collect();
        if !missing.is_empty() {
            return Err(Error::MissingParts {
                file: first.file().to_owned(),
                count,
                missing,
            });
        }
        let mut parts = vec![first];
        for name in &names[1..] {
            parts.push(open(name)?);
        }
        check_parts(&parts, count)?;
        let model = Self::join(parts)?;
        let expected = model.parts[0].require::<u64>(SPLIT_TENSORS)?;
        let found = model.by_name.len() as u64;
        if found != expected {
            return Err(Error::TensorTotal {
                file: model.parts[0].file().to_owned(),
                found,
                expected,
            });
        }
        Ok(model)
    }

    /// The model that consists of these parts.
    fn join(parts: Vec<Gguf>) -> Result<Self, Error> {
        let mut by_name = Vec::new();
        for (part, gguf) in parts.iter().enumerate() {
            // Both fit: file names count parts with five digits, and the reader limits tensors.
            by_name.extend((0..gguf.tensors().len()).map(|index| (part as u32, index as u32)));
        }
        let name = |&(part, index): &(u32, u32)| parts[part as usize].tensors()[index as usize].name.as_str();
        // The part decides among equals, so that an error names the later one as the offender.
        by_name.sort_unstable_by(|a, b| (name(a), a).cmp(&(name(b), b)));
        if let Some(pair) = by_name.windows(2).find(|pair| name(&pair[0]) == name(&pair[1])) {
            return Err(Error::TensorInTwoParts {
                file: parts[pair[1].0 as usize].file().to_owned(),
                other: parts[pair[0].0 as usize].file().to_owned(),
                tensor: name(&pair[0]).to_owned(),
            });
        }
        Ok(Self { parts, by_name })
    }

    /// The model's metadata: that of its first part.
    pub fn metadata(&self) -> &Metadata {
        self.first().metadata()
    }

    /// The model's only file or first part.
    pub fn first(&self) -> &Gguf {
        // There always is one: `open` begins with it.
        &self.parts[0]
    }

    /// The model's files, in their order.
    pub fn parts(&self) -> &[Gguf] {
        &self.parts
    }

    /// How many tensors all parts hold.
    pub fn tensor_count(&self) -> usize {
        self.by_name.len()
    }

    /// The length of all files together, in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.parts.iter().map(Gguf::file_bytes).sum()
    }

    /// The length of all tensors together, in bytes.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors().map(|location| location.tensor.bytes).sum()
    }

    /// Where the tensor of this name is.
    pub fn tensor(&self, name: &str) -> Option<Location<'_>> {
        self.by_name
            .binary_search_by(|&entry| self.location(entry).tensor.name.as_str().cmp(name))
            .ok()
            .map(|found| self.location(self.by_name[found]))
    }

    /// All tensors, sorted by name, so that the order does not depend on how a model is divided.
    pub fn tensors(&self) -> impl Iterator<Item = Location<'_>> {
        self.by_name.iter().map(|&entry| self.location(entry))
    }

    fn location(&self, (part, index): (u32, u32)) -> Location<'_> {
        let gguf = &self.parts[part as usize];
        Location {
            part: part as usize,
            file: gguf.file(),
            tensor: &gguf.tensors()[index as usize],
        }
    }
}

/// The names of all parts, from the first one's metadata and name.
fn part_names(first: &Gguf, count: u32) -> Result<Vec<PathBuf>, Error> {
    if count > PART_LIMIT {
        return Err(Fault::WrongType {
            key: SPLIT_COUNT.to_owned(),
            found: count.to_string(),
            expected: "a number up to 99999",
        }
        .of(first.file()));
    }
    let index = first.require::<u32>(SPLIT_NUMBER)?;
    let number = index.saturating_add(1);
    let Some(prefix) = part_prefix(first.file(), number, count) else {
        return Err(Error::PartName {
            file: first.file().to_owned(),
            number,
            count,
        });
    };
    if index != 0 {
        return Err(Error::NotFirstPart {
            file: first.file().to_owned(),
            number,
            count,
            first: part_path(&prefix, 1, count),
        });
    }
    Ok((1..=count)
        .map(|number| part_path(&prefix, number, count))
        .collect())
}

/// What comes before `-00001-of-00003.gguf` in the name of part 1 of 3.
fn part_prefix(file: &Path, number: u32, count: u32) -> Option<PathBuf> {
    let name = file.file_name()?.to_str()?;
    let prefix = name.strip_suffix(&format!("-{number:05}-of-{count:05}.gguf"))?;
    Some(file.with_file_name(prefix))
}

/// The name of a part, counted from one.
pub fn part_path(prefix: &Path, number: u32, count: u32) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(format!("-{number:05}-of-{count:05}.gguf"));
    path.into()
}

/// Checks that each part says of itself that it is that part of a model in so many parts.
fn check_parts(parts: &[Gguf], count: u32) -> Result<(), Error> {
    for (number, part) in parts.iter().enumerate().skip(1) {
        let foreign = |key, found, expected| Error::ForeignPart {
            file: part.file().to_owned(),
            first: parts[0].file().to_owned(),
            key,
            found,
            expected,
        };
        let found = part.require::<u64>(SPLIT_NUMBER)?;
        if found != number as u64 {
            return Err(foreign(SPLIT_NUMBER, found, number as u64));
        }
        // llama.cpp does not look at this key in further parts, so it may be absent.
        match part.get::<u64>(SPLIT_COUNT)? {
            Some(found) if found != u64::from(count) => {
                return Err(foreign(SPLIT_COUNT, found, count.into()));
            }
            _ => {}
        }
    }
    Ok(())
}
