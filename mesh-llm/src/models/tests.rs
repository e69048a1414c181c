//! The library as a whole.

use super::places::{Keeper, Places};
use super::*;
use crate::exit::Exit;
use std::fs;
use std::path::{Path, PathBuf};

const TINY_MODEL: &[u8] = include_bytes!("../../assets/mesh-tiny.gguf");
const MUCH: u64 = 1 << 40;

struct Disk {
    root: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["store", "state"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn model(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, TINY_MODEL).unwrap();
        path
    }

    fn library(&self) -> Library {
        let places = Places {
            store: Some(self.path("store")),
            others: vec![(Keeper::HuggingFace, self.path("hub"))],
        };
        Library::open(places, self.path("state"), self.path("own")).unwrap()
    }

    fn resolve(&self, wanted: &str) -> Result<Resolved, Error> {
        self.library().resolve(Some(wanted), MUCH)
    }

    fn here(&self, wanted: &str) -> PathBuf {
        match self.resolve(wanted) {
            Ok(Resolved::Here(model)) => model.path,
            other => panic!("{wanted}: {other:?}"),
        }
    }

    fn unnamed(&self) -> Model {
        match self.library().resolve(None, MUCH) {
            Ok(Resolved::Here(model)) => model,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_path_is_served_under_its_stem() {
    let disk = Disk::new();
    let path = disk.model("Qwen3-8B-Q4_K_M.gguf");
    let Ok(Resolved::Here(model)) = disk.resolve(path.to_str().unwrap()) else {
        panic!("it is not found");
    };
    assert_eq!(
        (model.id.as_str(), model.choice),
        ("Qwen3-8B-Q4_K_M", Choice::Named)
    );
}

#[test]
fn without_a_name_the_last_one_is_served_again() {
    let disk = Disk::new();
    assert_eq!(disk.unnamed().id, TINY);
    assert!(matches!(disk.unnamed().choice, Choice::NoneOnDisk { .. }));
    let a = disk.model("store/a.gguf");
    let b = disk.model("store/b.gguf");
    assert_eq!(disk.unnamed().choice, Choice::Largest { others: 1 });
    for path in [a, b] {
        disk.library().memory().used(&path);
        let model = disk.unnamed();
        assert_eq!((model.path, model.choice), (path, Choice::LastUsed));
    }
}

#[test]
fn a_name_finds_what_is_on_disk_before_what_is_elsewhere() {
    let disk = Disk::new();
    let is_missing = |wanted: &str, name: &str| match disk.resolve(wanted) {
        Ok(Resolved::Missing(missing)) => assert_eq!(missing.name(), name),
        other => panic!("{wanted}: {other:?}"),
    };
    is_missing("qwen3 8b", "Qwen3-8B-Q4_K_M");
    let other_quantization = disk.model("store/Qwen3-8B-Q8_0.gguf");
    assert_eq!(disk.here("qwen3 8b"), other_quantization);
    is_missing("Qwen3-8B-Q4_K_M", "Qwen3-8B-Q4_K_M");
    // The catalog's own file, which its repository writes in small letters.
    let of_catalog = disk.model("store/qwen2.5-3b-instruct-q4_k_m.gguf");
    assert_eq!(disk.here("Qwen2.5-3B"), of_catalog);
    let mine = disk.model("store/my-model.gguf");
    assert_eq!(disk.here("My Model"), mine);
}

#[test]
fn what_may_mean_several_is_not_guessed() {
    let disk = Disk::new();
    disk.model("store/m-Q4_0.gguf");
    disk.model("store/m-Q8_0.gguf");
    for (wanted, words) in [("m", "m-Q4_0, m-Q8_0"), ("32b", "Qwen3-32B-Q4_K_M")] {
        let error = disk.resolve(wanted).unwrap_err();
        assert_eq!(error.exit(), Exit::FILE);
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = disk.resolve("nonsense").unwrap_err().to_string();
    assert!(
        error.contains("m-Q4_0, m-Q8_0") && error.contains("`mesh-llm download`"),
        "{error}"
    );
    let error = disk.resolve("Mixtral-8x22B").unwrap_err().to_string();
    assert!(error.contains("catalog.tsv"), "{error}");
}

#[test]
fn a_repository_s_model_is_found_where_it_was_downloaded_to() {
    let disk = Disk::new();
    let cached = disk.model("hub/models--org--repo/snapshots/abc/x-Q4_K_M.gguf");
    disk.model("hub/models--org--repo/snapshots/abc/x-Q8_0.gguf");
    assert_eq!(disk.here("org/repo"), cached);
    assert_eq!(disk.here("org/repo/x-Q4_K_M.gguf"), cached);
    assert!(matches!(disk.resolve("org/repo:Q2_K"), Ok(Resolved::Missing(_))));
    let downloaded = disk.model("store/y-Q2_K.gguf");
    disk.library().memory().came_from(&downloaded, "org/other");
    assert_eq!(disk.here("org/other:q2_k"), downloaded);
    assert_eq!(disk.here("org/other/folder/y-Q2_K.gguf"), downloaded);
}

#[test]
fn a_url_s_file_is_found_by_its_name() {
    let disk = Disk::new();
    let url = "https://example.com/a/z.gguf?download=true";
    assert!(matches!(
        disk.resolve(url),
        Ok(Resolved::Missing(Missing::Url { file_name, .. })) if file_name == "z.gguf"
    ));
    let path = disk.model("store/z.gguf");
    assert_eq!(disk.here(url), path);
    assert!(disk.resolve("https://example.com/a/").is_err());
}

#[test]
fn what_is_no_model_is_refused_by_kind() {
    let disk = Disk::new();
    let text = disk.path("text.gguf");
    fs::write(&text, "<html>not found</html>").unwrap();
    let empty = disk.path("empty.gguf");
    fs::write(&empty, "").unwrap();
    let exit = |path: &Path| disk.resolve(path.to_str().unwrap()).unwrap_err().exit();
    assert_eq!(exit(&text), Exit::MODEL);
    assert_eq!(exit(&empty), Exit::MODEL);
    assert_eq!(exit(&disk.path("store")), Exit::FILE);
    assert_eq!(exit(&disk.path("none.gguf")), Exit::FILE);
    let second = disk.model("m-00002-of-00003.gguf");
    let error = disk.resolve(second.to_str().unwrap()).unwrap_err().to_string();
    assert!(error.ends_with("m-00001-of-00003.gguf"), "{error}");
}

#[test]
fn a_catalog_that_cannot_be_understood_is_told_with_its_line() {
    let disk = Disk::new();
    fs::write(
        disk.path("state/catalog.tsv"),
        "name\tsize\thf_repo\tfile\nx\thuge\t\t\n",
    )
    .unwrap();
    let places = Places::default();
    let error = Library::open(places, disk.path("state"), disk.path("own")).unwrap_err();
    assert!(error.to_string().contains("catalog.tsv:2: "), "{error}");
}

mod drafts {
    use super::super::library::KnownDraft;
    use super::*;

    const CATALOG: &str = "name\tsize\thf_repo\tfile\tdraft\n\
        Big\t1GB\tme/big\tx/big-q4.gguf\tSmall\n\
        Small\t1GB\tme/small\tsmall-q4.gguf\t\n";

    fn draft_for(disk: &Disk, path: &Path) -> KnownDraft {
        fs::write(disk.path("state").join(catalog::FILE_NAME), CATALOG).unwrap();
        let model = library::file_model(path, Choice::Named).unwrap();
        disk.library().draft_for(&model)
    }

    #[test]
    fn it_is_the_one_of_the_catalog_once_it_is_on_disk() {
        let disk = Disk::new();
        let big = disk.model("elsewhere/BIG-q4.gguf");
        let elsewhere = KnownDraft::Elsewhere {
            model: "Big".to_owned(),
        };
        assert_eq!(draft_for(&disk, &big), elsewhere);
        let small = disk.model("store/small-q4.gguf");
        let KnownDraft::Here(draft) = draft_for(&disk, &big) else {
            panic!("the draft is in the store");
        };
        assert_eq!(draft.path, small);
    }

    #[test]
    fn a_model_is_known_by_its_own_name_too() {
        let disk = Disk::new();
        let big = disk.model("big.gguf");
        assert!(matches!(draft_for(&disk, &big), KnownDraft::Elsewhere { .. }));
    }

    #[test]
    fn there_is_none_for_other_models() {
        let disk = Disk::new();
        let (small, other) = (disk.model("store/small-q4.gguf"), disk.model("other.gguf"));
        assert_eq!(draft_for(&disk, &small), KnownDraft::None);
        assert_eq!(draft_for(&disk, &other), KnownDraft::None);
    }

    #[test]
    fn the_embedded_model_has_its_own() {
        let disk = Disk::new();
        let Ok(Resolved::Here(tiny)) = disk.resolve(TINY) else {
            panic!("it is always there");
        };
        let KnownDraft::Here(draft) = disk.library().draft_for(&tiny) else {
            panic!("and so is its draft model");
        };
        assert_eq!(draft.path.parent(), tiny.path.parent());
        assert_ne!(draft.path, tiny.path);
    }
}
