//! Finds the model that words refer to: on this machine, or what to fetch for it.

use super::catalog::{self, Catalog, Entry, Source};
use super::choice::{self, Choice};
use super::error::{Error, Names};
use super::inventory::{self, OnDisk, inventory};
use super::memory::Memory;
use super::origin::Origin;
use super::places::{Keeper, Places};
use super::quantization::{self, RepositoryFile};
use super::reference::{Pick, Reference, Repository};
use super::{file, spelling, tiny};
use std::path::{Path, PathBuf};

/// All that is known of models on this machine.
#[derive(Debug, Clone)]
pub struct Library {
    /// Where models are.
    pub places: Places,
    /// Those known by name.
    pub catalog: Catalog,
    /// The state directory, for what is remembered.
    state: PathBuf,
    /// Where the embedded model is put.
    own: PathBuf,
}

/// A model that can be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The file, of a split model its first part.
    pub path: PathBuf,
    /// What clients call it.
    pub id: String,
    /// Why this one.
    pub choice: Choice,
}

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// On this machine.
    Here(Model),
    /// Elsewhere.
    Missing(Missing),
}

/// A model that is to be downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// One of the catalog, whose files are known.
    Known(Entry),
    /// One of a repository, whose files are to be asked for.
    Repository(Repository),
    /// One of a repository, which is to be the same as another machine's.
    Copy(Origin),
    /// A file with an address of its own.
    Url {
        /// The address.
        url: String,
        /// The file's name.
        file_name: String,
    },
}

/// The draft model that is known to guess well for a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownDraft {
    /// On this machine.
    Here(Model),
    /// To be downloaded.
    Elsewhere {
        /// The name of the model that it guesses for.
        model: String,
    },
    /// None is known.
    None,
}

impl Missing {
    /// As people call it.
    pub fn name(&self) -> String {
        match self {
            Missing::Known(entry) => entry.name.clone(),
            Missing::Repository(repository) | Missing::Copy(Origin { repository, .. }) => {
                repository.to_string()
            }
            Missing::Url { file_name, .. } => file_name.clone(),
        }
    }
}

impl Library {
    /// What is known of models, with the state directory `state` and the embedded model in `own`.
    ///
    /// # Errors
    /// Where the user's catalog cannot be understood.
    pub fn open(places: Places, state: PathBuf, own: PathBuf) -> Result<Self, Error> {
        let users = state.join(catalog::FILE_NAME);
        let table = match std::fs::read_to_string(&users) {
            Ok(table) => Some(table),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(cause) => return Err(Error::Unreadable { path: users, cause }),
        };
        let catalog = Catalog::new(table.as_deref().map(|table| (users, table)))?;
        Ok(Self {
            places,
            catalog,
            state,
            own,
        })
    }

    /// All models on this machine, by name.
    pub fn inventory(&self) -> Vec<OnDisk> {
        let mut models = inventory(&self.places, Some(&self.state.join(inventory::INDEX)));
        let origins = self.memory().origins();
        for model in &mut models {
            let origin = origins.get(&model.found.path);
            model.found.repository = model.found.repository.take().or_else(|| origin.cloned());
        }
        models
    }

    /// What is remembered from one start to the next.
    pub fn memory(&self) -> Memory {
        Memory::at(&self.state)
    }

    /// Finds the model that `wanted` refers to or, where nothing is wanted, the one to serve then.
    ///
    /// # Errors
    /// Where it cannot be told which is meant, or its file is none.
    pub fn resolve(&self, wanted: Option<&str>, memory_bytes: u64) -> Result<Resolved, Error> {
        let Some(wanted) = wanted else {
            return self.unnamed(memory_bytes).map(Resolved::Here);
        };
        match Reference::read(wanted, |words| Path::new(words).exists()) {
            Reference::Tiny => tiny::model(&self.own, Choice::Named).map(Resolved::Here),
            Reference::Path(path) => file_model(&path, Choice::Named).map(Resolved::Here),
            Reference::Name(name) => self.named(&name),
            Reference::Repository(repository) => Ok(self.in_repository(repository)),
            Reference::Url(url) => self.at_url(url),
        }
    }

    /// Finds what the words refer to for somebody who wants it in the store: of models on disk, only the
    /// very same one will do.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn resolve_to_download(&self, words: &str) -> Result<Resolved, Error> {
        match (
            Reference::read(words, |words| Path::new(words).exists()),
            self.catalog.find(words).as_slice(),
        ) {
            (Reference::Name(_), [entry]) => match find_entry(&self.inventory(), entry) {
                Some(model) => Ok(Resolved::Here(of_inventory(model, Choice::Named))),
                None => self.to_fetch(entry).map(Resolved::Missing),
            },
            (Reference::Name(name), [_, _, ..]) => {
                let several = self.catalog.find(&name);
                Err(ambiguous(&name, several.iter().map(|entry| &entry.name)))
            }
            _ => self.resolve(Some(words), 0),
        }
    }

    /// Finds a model on disk, by its name or the path of its file.
    ///
    /// # Errors
    /// Where none has such a name, or several have.
    pub fn on_disk(&self, words: &str) -> Result<OnDisk, Error> {
        let models = self.inventory();
        if let Some(model) = models.iter().find(|model| model.found.path == Path::new(words)) {
            return Ok(model.clone());
        }
        match spelling::best(words, &models, |model| &model.found.name).as_slice() {
            [] => Err(Error::NotOnDisk {
                name: words.to_owned(),
                there: Names(models.into_iter().map(|model| model.found.name).collect()),
            }),
            [model] => Ok((*model).clone()),
            // Of one name, too: what is removed must be what is meant.
            several => {
                let paths: Vec<String> = several
                    .iter()
                    .map(|model| model.found.path.display().to_string())
                    .collect();
                Err(ambiguous(words, paths.iter()))
            }
        }
    }

    /// The draft model that guesses ahead for `model`, as far as is known.
    pub fn draft_for(&self, model: &Model) -> KnownDraft {
        if tiny::is_it(model, &self.own) {
            // It only makes answers faster: what cannot be written is told where it is needed.
            return tiny::draft(&self.own).map_or(KnownDraft::None, KnownDraft::Here);
        }
        let Some((entry, draft)) = self.entry_of(model).and_then(|entry| {
            let draft = self.catalog.entry(entry.draft.as_deref()?)?;
            Some((entry, draft))
        }) else {
            return KnownDraft::None;
        };
        match find_entry(&self.inventory(), draft) {
            Some(draft) => KnownDraft::Here(of_inventory(draft, Choice::Named)),
            None => KnownDraft::Elsewhere {
                model: entry.name.clone(),
            },
        }
    }

    /// The catalog's entry for a model on this machine: by its file's name, or by its own.
    fn entry_of(&self, model: &Model) -> Option<&Entry> {
        self.entry_of_file(&model.path).or_else(|| {
            let mut entries = self.catalog.entries().iter();
            entries.find(|entry| entry.name.eq_ignore_ascii_case(&model.id))
        })
    }

    /// The catalog's entry for a file of this name.
    pub(super) fn entry_of_file(&self, path: &Path) -> Option<&Entry> {
        let file = path.file_name()?;
        let is_file = |entry: &&Entry| {
            let name = entry.source.as_ref().and_then(Source::file_name);
            name.is_some_and(|name| file.eq_ignore_ascii_case(name))
        };
        self.catalog.entries().iter().find(is_file)
    }

    fn to_fetch(&self, entry: &Entry) -> Result<Missing, Error> {
        if entry.source.is_none() {
            return Err(Error::NoSource {
                name: entry.name.clone(),
                catalog: self.state.join(catalog::FILE_NAME),
            });
        }
        Ok(Missing::Known(entry.clone()))
    }

    fn unnamed(&self, memory_bytes: u64) -> Result<Model, Error> {
        let models = self.inventory();
        let last = self.memory().last_used();
        let store = self.places.store.as_deref();
        // One that was named by its path is in no list.
        if let Some(path) = last.as_deref().filter(|path| path.is_file())
            && !models.iter().any(|model| model.found.path == path)
            && let Ok(model) = file_model(path, Choice::LastUsed)
        {
            return Ok(model);
        }
        match choice::choose(&models, last.as_deref(), memory_bytes, store) {
            (Some(model), choice) => Ok(of_inventory(model, choice)),
            (None, choice) => tiny::model(&self.own, choice),
        }
    }

    fn named(&self, name: &str) -> Result<Resolved, Error> {
        let models = self.inventory();
        let known = self.catalog.find(name);
        let on_disk = spelling::best(name, &models, |model| &model.found.name);
        let disk_fit = on_disk
            .first()
            .and_then(|model| spelling::fit(name, &model.found.name));
        let known_fit = known.first().and_then(|entry| spelling::fit(name, &entry.name));
        // The catalog's name of a model stands for its file, whatever that is called.
        if let [entry] = known.as_slice()
            && disk_fit.is_none_or(|disk| known_fit.is_some_and(|known| known <= disk))
            && let Some(model) = find_entry(&models, entry)
        {
            return Ok(Resolved::Here(of_inventory(model, Choice::Named)));
        }
        let prefers_disk = match (disk_fit, known_fit) {
            (Some(disk), Some(known)) => disk <= known,
            (disk, _) => disk.is_some(),
        };
        if prefers_disk {
            return match one_name(&on_disk) {
                Some(model) => Ok(Resolved::Here(of_inventory(model, Choice::Named))),
                None => Err(ambiguous(name, on_disk.iter().map(|model| &model.found.name))),
            };
        }
        match known.as_slice() {
            [] => Err(Error::UnknownName {
                name: name.to_owned(),
                there: Names(models.into_iter().map(|model| model.found.name).collect()),
            }),
            [entry] => self.to_fetch(entry).map(Resolved::Missing),
            several => Err(ambiguous(name, several.iter().map(|entry| &entry.name))),
        }
    }

    fn in_repository(&self, repository: Repository) -> Resolved {
        let models: Vec<OnDisk> = self
            .inventory()
            .into_iter()
            .filter(|model| model.about.is_ok())
            .filter(|model| model.found.repository == Some(repository.origin()))
            .collect();
        match pick_on_disk(&models, &repository.pick) {
            Some(model) => Resolved::Here(of_inventory(model, Choice::Named)),
            None => Resolved::Missing(Missing::Repository(repository)),
        }
    }

    fn at_url(&self, url: String) -> Result<Resolved, Error> {
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let file_name = path.rsplit('/').next().unwrap_or_default().to_owned();
        if !file::is_gguf(Path::new(&file_name)) || file_name.starts_with('.') {
            return Err(Error::NotAModelUrl { url });
        }
        let here = self.places.store.as_ref().map(|store| store.join(&file_name));
        let origins = self.memory().origins();
        let same = |path: &PathBuf| origins.get(path).is_none_or(|origin| *origin == url);
        match here.filter(|path| path.exists() && same(path)) {
            Some(path) => file_model(&path, Choice::Named).map(Resolved::Here),
            None => Ok(Resolved::Missing(Missing::Url { url, file_name })),
        }
    }
}

/// The model in a file that somebody named, or that was downloaded.
///
/// # Errors
/// Where the file cannot be a model.
pub fn file_model(path: &Path, choice: Choice) -> Result<Model, Error> {
    let stem = file::stem(path);
    if let Some(part) = file::part(&stem).filter(|part| part.number != 1) {
        return Err(Error::NotTheFirstPart {
            path: path.to_owned(),
            first: part.first(path),
        });
    }
    file::check(path)?;
    Ok(Model {
        path: path.to_owned(),
        id: file::id(&stem).to_owned(),
        choice,
    })
}

fn of_inventory(model: &OnDisk, choice: Choice) -> Model {
    Model {
        path: model.found.path.clone(),
        id: model.found.name.clone(),
        choice,
    }
}

/// The model, where all have one name: the store's before others'.
fn one_name<'a>(models: &[&'a OnDisk]) -> Option<&'a OnDisk> {
    let first = models.first()?;
    let same = models.iter().all(|model| model.found.name == first.found.name);
    same.then_some(*first)
}

/// The files of a catalog's model, by the name of its first file.
pub fn find_entry<'a>(models: &'a [OnDisk], entry: &Entry) -> Option<&'a OnDisk> {
    let name = entry.source.as_ref()?.file_name()?;
    // One that lacks parts is still to be fetched.
    models.iter().filter(|model| model.about.is_ok()).find(|model| {
        model
            .found
            .path
            .file_name()
            .is_some_and(|own| own.eq_ignore_ascii_case(name))
    })
}

/// The model of one repository that is meant, if it is among those on disk.
fn pick_on_disk<'a>(models: &'a [OnDisk], pick: &Pick) -> Option<&'a OnDisk> {
    let file_name = |path: &Path| {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let files: Vec<RepositoryFile> = models
        .iter()
        .map(|model| RepositoryFile {
            path: file_name(&model.found.path),
            bytes: model.found.bytes,
        })
        .collect();
    // Downloads are flat: of a file in a folder, the name counts.
    let pick = match pick {
        Pick::File(path) => Pick::File(file_name(Path::new(path))),
        other => other.clone(),
    };
    let variant = quantization::pick(&files, &pick).ok()?;
    let first = &variant.files.first()?.path;
    models.iter().find(|model| file_name(&model.found.path) == *first)
}

fn ambiguous<'a>(name: &str, models: impl Iterator<Item = &'a String>) -> Error {
    Error::Ambiguous {
        name: name.to_owned(),
        models: Names(models.cloned().collect()),
    }
}

/// Whether a model may be removed by this program: those of other programs are theirs, also where a link
/// in the store leads to them.
pub fn is_ours(model: &OnDisk, store: Option<&Path>) -> bool {
    let inside = || {
        let (path, store) = (model.found.path.canonicalize().ok()?, store?.canonicalize().ok()?);
        Some(path.starts_with(store))
    };
    model.found.keeper == Keeper::Store && inside() == Some(true)
}
