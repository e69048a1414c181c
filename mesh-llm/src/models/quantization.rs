//! Which of a repository's files is meant. Pure.

use super::file;
use super::reference::Pick;
use std::collections::BTreeMap;
use std::path::Path;

/// The quantizations that suit most people, the best first: good answers in little memory.
const USUAL: [&str; 8] = [
    "Q4_K_M", "Q4_K_XL", "MXFP4", "Q4_K_S", "Q4_0", "Q5_K_M", "Q8_0", "F16",
];

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryFile {
    /// Its path in the repository.
    pub path: String,
    /// Its length.
    pub bytes: u64,
}

/// A model of a repository: one file, or the parts of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// As `Q4_K_M`, in capitals; empty where the name does not tell.
    pub quantization: String,
    /// Its files, in the order of their parts.
    pub files: Vec<RepositoryFile>,
}

impl Variant {
    /// The length of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Why nothing was picked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unpicked {
    /// There is no GGUF file at all.
    NoModels,
    /// There is none like that; these there are.
    NotThere(Vec<String>),
    /// Several fit; these.
    Several(Vec<String>),
}

/// The models of a repository, by their first file's path.
pub fn variants(files: &[RepositoryFile]) -> Vec<Variant> {
    let mut models: BTreeMap<String, Vec<RepositoryFile>> = BTreeMap::new();
    for found in files {
        let path = Path::new(&found.path);
        let stem = file::stem(path);
        let lower = stem.to_lowercase();
        if !file::is_gguf(path) || lower.contains("mmproj") || lower.contains("imatrix") {
            continue;
        }
        let folder = path.parent().map(|folder| folder.to_string_lossy().into_owned());
        let model = format!("{}/{}", folder.unwrap_or_default(), file::id(&stem));
        models.entry(model).or_default().push(found.clone());
    }
    models
        .into_iter()
        .map(|(model, mut files)| {
            files.sort_by(|a, b| a.path.cmp(&b.path));
            Variant {
                quantization: quantization(&model).unwrap_or_default(),
                files,
            }
        })
        .collect()
}

/// The quantization that a name ends with: `Qwen3-8B-Q4_K_M`, `model.IQ4_XS`, `x-UD-Q4_K_XL`.
fn quantization(name: &str) -> Option<String> {
    let last = name.rsplit(['-', '.', '/']).next()?.to_ascii_uppercase();
    let digit_follows = |prefix: &str| {
        last.strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let known = ["Q", "IQ", "TQ", "MXFP"].into_iter().any(digit_follows)
        || ["F16", "F32", "BF16"].contains(&last.as_str());
    known.then_some(last)
}

/// The model that is meant.
///
/// # Errors
/// Where it cannot be told, with what there is.
pub fn pick(files: &[RepositoryFile], pick: &Pick) -> Result<Variant, Unpicked> {
    let variants = variants(files);
    if variants.is_empty() {
        return Err(Unpicked::NoModels);
    }
    let fitting: Vec<&Variant> = match pick {
        Pick::File(path) => of_file(&variants, path),
        Pick::Quantization(wanted) => of_quantization(&variants, wanted),
        Pick::Usual => USUAL
            .iter()
            .map(|usual| of_quantization(&variants, usual))
            .find(|fitting| !fitting.is_empty())
            .unwrap_or_else(|| variants.iter().collect()),
    };
    match fitting.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Unpicked::NotThere(match pick {
            Pick::File(_) => first_paths(&variants.iter().collect::<Vec<_>>()),
            _ => quantizations(&variants),
        })),
        several => Err(Unpicked::Several(first_paths(several))),
    }
}

/// Those with this file. A name alone is enough, in whatever folder of the repository it is.
fn of_file<'a>(variants: &'a [Variant], path: &str) -> Vec<&'a Variant> {
    let with = |is_it: &dyn Fn(&str) -> bool| -> Vec<&Variant> {
        let has_it = |variant: &&Variant| variant.files.iter().any(|file| is_it(&file.path));
        variants.iter().filter(has_it).collect()
    };
    let exactly = with(&|own| own == path);
    if !exactly.is_empty() || path.contains('/') {
        return exactly;
    }
    with(&|own| own.rsplit('/').next() == Some(path))
}

fn of_quantization<'a>(variants: &'a [Variant], wanted: &str) -> Vec<&'a Variant> {
    let wanted = wanted.to_ascii_uppercase().replace('-', "_");
    variants
        .iter()
        .filter(|variant| variant.quantization == wanted)
        .collect()
}

fn quantizations(variants: &[Variant]) -> Vec<String> {
    let mut names: Vec<String> = variants
        .iter()
        .map(|variant| variant.quantization.clone())
        .filter(|name| !name.is_empty())
        .collect();
    names.sort();
    names.dedup();
    names
}

fn first_paths(variants: &[&Variant]) -> Vec<String> {
    variants
        .iter()
        .filter_map(|variant| Some(variant.files.first()?.path.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(paths: &[&str]) -> Vec<RepositoryFile> {
        paths
            .iter()
            .map(|path| RepositoryFile {
                path: (*path).to_owned(),
                bytes: 10,
            })
            .collect()
    }

    fn picked(paths: &[&str], wanted: &Pick) -> Result<Vec<String>, Unpicked> {
        let variant = pick(&files(paths), wanted)?;
        Ok(variant.files.into_iter().map(|file| file.path).collect())
    }

    const REPOSITORY: [&str; 8] = [
        "README.md",
        "m-Q4_K_M.gguf",
        "m-Q8_0.gguf",
        "m-UD-IQ2_XXS.gguf",
        "BF16/m-BF16-00002-of-00002.gguf",
        "BF16/m-BF16-00001-of-00002.gguf",
        "mmproj-F16.gguf",
        "m.imatrix.gguf",
    ];

    #[test]
    fn the_usual_one_is_a_good_compromise() {
        assert_eq!(picked(&REPOSITORY, &Pick::Usual).unwrap(), ["m-Q4_K_M.gguf"]);
        assert_eq!(picked(&["only.gguf"], &Pick::Usual).unwrap(), ["only.gguf"]);
    }

    #[test]
    fn a_quantization_is_found_in_any_spelling_with_all_its_parts() {
        let wanted = |name: &str| Pick::Quantization(name.into());
        assert_eq!(picked(&REPOSITORY, &wanted("q8_0")).unwrap(), ["m-Q8_0.gguf"]);
        assert_eq!(
            picked(&REPOSITORY, &wanted("iq2_xxs")).unwrap(),
            ["m-UD-IQ2_XXS.gguf"]
        );
        assert_eq!(
            picked(&REPOSITORY, &wanted("BF16")).unwrap(),
            [
                "BF16/m-BF16-00001-of-00002.gguf",
                "BF16/m-BF16-00002-of-00002.gguf"
            ]
        );
    }

    #[test]
    fn a_file_s_name_is_enough_where_it_is_in_a_folder() {
        let wanted = |name: &str| Pick::File(name.into());
        let both = [
            "BF16/m-BF16-00001-of-00002.gguf",
            "BF16/m-BF16-00002-of-00002.gguf",
        ];
        assert_eq!(
            picked(&REPOSITORY, &wanted("m-BF16-00001-of-00002.gguf")).unwrap(),
            both
        );
        assert!(picked(&REPOSITORY, &wanted("F16/m-BF16-00001-of-00002.gguf")).is_err());
        assert_eq!(
            picked(&["a/m.gguf", "m.gguf"], &wanted("m.gguf")).unwrap(),
            ["m.gguf"]
        );
        assert!(matches!(
            picked(&["a/m.gguf", "b/m.gguf"], &wanted("m.gguf")),
            Err(Unpicked::Several(_))
        ));
    }

    #[test]
    fn what_is_not_there_is_answered_with_what_is() {
        let there = ["BF16", "IQ2_XXS", "Q4_K_M", "Q8_0"].map(str::to_owned).to_vec();
        assert_eq!(
            picked(&REPOSITORY, &Pick::Quantization("Q5_0".into())),
            Err(Unpicked::NotThere(there))
        );
        assert!(matches!(
            picked(&REPOSITORY, &Pick::File("x.gguf".into())),
            Err(Unpicked::NotThere(paths)) if paths.len() == 4
        ));
        assert_eq!(picked(&["README.md"], &Pick::Usual), Err(Unpicked::NoModels));
        assert!(matches!(
            picked(&["a-Q4_0.gguf", "b-Q4_0.gguf"], &Pick::Usual),
            Err(Unpicked::Several(paths)) if paths.len() == 2
        ));
    }
}
