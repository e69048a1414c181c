//! Finding a model by what it is.

use super::{identity, memory, model};
use crate::gguf::{TensorType, Writer};
use crate::rpc::files::folders::list;
use crate::rpc::files::{Error, Library, Search, Tally};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

fn library(folders: &[&Path]) -> Library {
    Library::new(folders, memory(None)).unwrap()
}

fn found(search: &Search) -> Option<PathBuf> {
    search.found.as_ref().map(|model| model.path().to_owned())
}

struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    /// A place in the directory, with the folders before it. Without links, as the library says it.
    fn at(&self, path: &str) -> PathBuf {
        let path = self.directory.path().canonicalize().unwrap().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }
}

/// A model of another size for each number, so that sizes, tables and contents tell models apart.
fn sized(number: u64) -> Writer<'static> {
    let mut writer = model(number as u8);
    writer.tensor("extra", [1 + number / 5], TensorType::F32, move |out| {
        out.write_all(&vec![number as u8; 4 * (1 + number as usize / 5)])
    });
    writer
}

#[test]
fn of_five_hundred_files_only_those_with_the_same_table_are_sampled() {
    let disk = Disk::new();
    for number in 0..500 {
        let path = disk.at(&format!("maker-{}/model-{number:03}.gguf", number % 7));
        sized(number).write(path).unwrap();
    }
    let wanted = identity(disk.at("maker-4/model-333.gguf"));
    let store = disk.at("memory.json");
    let folder = disk.directory.path();
    let library = Library::new([folder], memory(Some(&store))).unwrap();
    let search = library.find(&wanted);
    assert_eq!(found(&search), Some(disk.at("maker-4/model-333.gguf")));
    assert_eq!(search.tally.files, 500);
    assert!(
        search.tally.opened <= 500 && search.tally.sampled <= 5,
        "{:?}",
        search.tally
    );

    let again = Tally {
        files: 500,
        opened: 1,
        ..Tally::default()
    };
    assert_eq!(library.find(&wanted).tally, again);
    // Another process, with what the first one remembered.
    let library = Library::new([folder], memory(Some(&store))).unwrap();
    assert_eq!(library.find(&wanted).tally, again);
    let mut other = wanted;
    other.outline.tensor_bytes += 1 << 40;
    other.fingerprint = identity(disk.at("maker-0/model-000.gguf")).fingerprint;
    let search = library.find(&other);
    assert_eq!((found(&search), search.tally.opened), (None, 0));
}

#[test]
fn a_model_in_parts_is_found_by_the_whole_one_and_the_other_way_round() {
    let disk = Disk::new();
    let whole = disk.at("whole/model.gguf");
    model(1).write(&whole).unwrap();
    // The first part has no tensor, and is by itself much too short.
    let parts = model(1).write_parts(disk.at("parts/model"), &[0, 3, 2]).unwrap();
    let wanted = identity(&whole);
    let search = library(&[&disk.at("parts/")]).find(&wanted);
    assert_eq!(found(&search), Some(parts[0].clone()));
    assert_eq!(search.tally.opened, 1);
    let search = library(&[&disk.at("whole/")]).find(&identity(&parts[0]));
    assert_eq!(found(&search), Some(whole));
    fs::remove_file(&parts[2]).unwrap();
    assert!(library(&[&disk.at("parts/")]).find(&wanted).found.is_none());
}

#[test]
fn a_whole_model_with_the_name_of_a_part_is_found() {
    let disk = Disk::new();
    for name in ["a/derived-00001-of-00003.gguf", "b/derived-00002-of-00003.gguf"] {
        let path = disk.at(name);
        model(1).write(&path).unwrap();
        let search = library(&[path.parent().unwrap()]).find(&identity(&path));
        assert_eq!(found(&search), Some(path));
    }
}

#[test]
fn links_within_the_directories_are_followed_and_others_are_not() {
    let disk = Disk::new();
    let blob = disk.at("hub/models--o--m/blobs/0123abcd");
    model(1).write(&blob).unwrap();
    let link = disk.at("hub/models--o--m/snapshots/4711/model.gguf");
    symlink("../../blobs/0123abcd", &link).unwrap();
    let secret = disk.at("private/secret.gguf");
    model(2).write(&secret).unwrap();
    symlink(&secret, disk.at("hub/secret.gguf")).unwrap();
    symlink("../private", disk.at("hub/folder")).unwrap();
    symlink("..", disk.at("hub/models--o--m/loop")).unwrap();
    symlink("nowhere", disk.at("hub/gone.gguf")).unwrap();

    let hub = library(&[&disk.at("hub/")]);
    let search = hub.find(&identity(&blob));
    assert_eq!(found(&search), Some(link));
    assert_eq!(search.tally.outside, 1);
    let wanted = identity(&secret);
    assert!(hub.find(&wanted).found.is_none());
    // With its own directory it may be had.
    let both = library(&[&disk.at("hub/"), &disk.at("private/")]);
    assert!(both.find(&wanted).found.is_some());
}

#[test]
fn one_file_under_several_names_is_read_once() {
    let disk = Disk::new();
    let path = disk.at("a.gguf");
    model(1).write(&path).unwrap();
    for name in ["b.gguf", "c.gguf"] {
        symlink(&path, disk.at(name)).unwrap();
        fs::hard_link(&path, disk.at(&format!("hard-{name}"))).unwrap();
    }
    let mut wanted = identity(&path);
    wanted.fingerprint = crate::rpc::files::Fingerprint::from_bytes([1; 32]);
    let tally = library(&[disk.directory.path()]).find(&wanted).tally;
    assert_eq!((tally.files, tally.opened, tally.sampled), (5, 1, 1));
}

#[test]
fn damaged_files_are_passed_over() {
    let disk = Disk::new();
    let bytes = model(1).to_bytes().unwrap();
    fs::write(disk.at("a.gguf"), vec![0; bytes.len()]).unwrap();
    fs::write(disk.at("b.gguf"), [b"GGUF".as_slice(), &[0xff; 300_000]].concat()).unwrap();
    fs::write(disk.at("c.gguf"), &bytes[..bytes.len() - 10]).unwrap();
    fs::write(disk.at("d.GGUF"), &bytes).unwrap();
    fs::create_dir(disk.at("e.gguf")).unwrap();
    let search = library(&[disk.directory.path()]).find(&identity(disk.at("d.GGUF")));
    assert_eq!(found(&search), Some(disk.at("d.GGUF")));
    assert_eq!(search.tally.failed, 3, "{:?}", search.tally);
}

#[test]
fn an_identity_from_a_stranger_does_no_harm() {
    let disk = Disk::new();
    model(1).write(disk.at("a.gguf")).unwrap();
    let mut wanted = identity(disk.at("a.gguf"));
    wanted.outline.tensors = u32::MAX;
    wanted.outline.tensor_bytes = u64::MAX;
    let library = library(&[disk.directory.path()]);
    assert!(library.find(&wanted).found.is_none());
    wanted.outline.tensor_bytes = 0;
    assert!(library.find(&wanted).found.is_none());
    // Nor does it make the library forget what it knows.
    let good = identity(disk.at("a.gguf"));
    assert_eq!(library.find(&good).tally.sampled, 1);
    wanted.outline.table = [0; 32];
    assert!(library.find(&wanted).found.is_none());
    let search = library.find(&good);
    assert_eq!((search.tally.sampled, search.found.is_some()), (0, true));
}

#[test]
fn only_so_many_entries_are_looked_at_and_only_so_deep() {
    let disk = Disk::new();
    for number in 0..20 {
        model(1).write(disk.at(&format!("{number:02}.gguf"))).unwrap();
    }
    let deep = "x/".repeat(8);
    model(1).write(disk.at(&format!("{deep}deep.gguf"))).unwrap();
    let folders = [disk.directory.path().canonicalize().unwrap()];
    let cut = list(&folders, 10);
    assert!(cut.is_cut && cut.files.len() <= 10);
    let whole = list(&folders, 1000);
    assert!(!whole.is_cut);
    assert_eq!(whole.files.len(), 20);
}

#[test]
fn a_directory_that_is_none_is_named() {
    let disk = Disk::new();
    let file = disk.at("file");
    fs::write(&file, "").unwrap();
    for path in [file, disk.at("none")] {
        let error = Library::new([&path], memory(None)).unwrap_err();
        assert!(
            matches!(&error, Error::Folder { folder, .. } if *folder == path),
            "{error}"
        );
    }
}

#[test]
fn a_model_in_ollama_s_store_is_found_though_its_name_says_nothing() {
    let disk = Disk::new();
    let blob = |digit: &str| disk.at(&format!("blobs/sha256-{}", digit.repeat(64)));
    sized(1).write(blob("a")).unwrap();
    fs::write(blob("b"), "a template").unwrap();
    let wanted = identity(blob("a"));
    let folder = disk.directory.path();
    let search = library(&[folder]).find(&wanted);
    assert_eq!((found(&search), search.tally.files), (Some(blob("a")), 2));

    // Names that Ollama does not give, and places where it keeps nothing.
    fs::rename(blob("a"), disk.at(&format!("other/sha256-{}", "a".repeat(64)))).unwrap();
    fs::write(disk.at("blobs/sha256-0a-partial"), "").unwrap();
    let search = library(&[folder]).find(&wanted);
    assert_eq!((found(&search), search.tally.files), (None, 1));
}
