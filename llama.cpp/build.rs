//! Compiles the shim against the headers of the llama.cpp that `llama-cpp-sys-2` carries, and
//! generates its Rust declarations. Without the feature `native` there is nothing to do.

fn main() {
    #[cfg(feature = "native")]
    native::build();
}

#[cfg(feature = "native")]
mod native {
    use std::env;
    use std::path::{Path, PathBuf};

    const SOURCES: [&str; 4] = [
        "shim/backend.cpp",
        "shim/chat.cpp",
        "shim/engine.cpp",
        "shim/sampler.cpp",
    ];

    pub(crate) fn build() {
        println!("cargo:rerun-if-changed=shim");
        let (llama_cpp, version) = llama_cpp_source();
        println!("cargo:rustc-env=LLAMA_CPP_VERSION={version}");
        let includes =
            ["include", "ggml/include", "ggml/src", "common", "vendor"].map(|dir| llama_cpp.join(dir));
        compile(&includes);
        declare(&includes);
        declare_backend(&llama_cpp, &includes);
    }

    /// Where cargo unpacked the llama.cpp sources, and the version of the crate that carries them.
    fn llama_cpp_source() -> (PathBuf, String) {
        let manifest = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("Cargo.toml");
        let platform = env::var("TARGET").expect("set by cargo");
        let metadata = |more: &[&str]| {
            let mut options = vec!["--filter-platform".to_owned(), platform.clone()];
            options.extend(more.iter().map(|option| (*option).to_owned()));
            cargo_metadata::MetadataCommand::new()
                .manifest_path(&manifest)
                .other_options(options)
                .exec()
        };
        // The listing wants packages that this build does not, tests' ones for example: they may
        // still have to be fetched.
        let metadata = metadata(&["--offline"])
            .or_else(|_| metadata(&[]))
            .expect("cargo metadata lists the packages that cargo just resolved");
        let package = metadata
            .packages
            .iter()
            .find(|package| package.name.as_str() == "llama-cpp-sys-2")
            .expect("llama-cpp-sys-2 is a dependency of this crate");
        let folder = package
            .manifest_path
            .parent()
            .expect("a manifest lies in a folder");
        (folder.join("llama.cpp").into(), package.version.to_string())
    }

    fn compile(includes: &[PathBuf]) {
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .files(SOURCES)
            .includes(includes)
            // The headers are llama.cpp's: their warnings are not ours to mend.
            .warnings(false)
            .compile("mesh_llama_shim");
    }

    /// The interface of a ggml backend, which the crate's bindings keep opaque. Types that they do have
    /// come from there.
    fn declare_backend(llama_cpp: &Path, includes: &[PathBuf]) {
        let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo")).join("ggml_backend.rs");
        bindgen::Builder::default()
            .header(
                llama_cpp
                    .join("ggml/src/ggml-backend-impl.h")
                    .display()
                    .to_string(),
            )
            .clang_args(includes.iter().map(|dir| format!("-I{}", dir.display())))
            .allowlist_type(
                "ggml_backend(_(buffer_type|buffer|device|reg))?(_i)?|ggml_backend_graph_optimize_params",
            )
            .allowlist_recursively(false)
            .allowlist_function("ggml_backend_buffer_init")
            .allowlist_var("GGML_BACKEND_API_VERSION")
            .generate_comments(false)
            .generate()
            .expect("ggml-backend-impl.h is a C header")
            .write_to_file(out)
            .expect("OUT_DIR is writable");
    }

    fn declare(includes: &[PathBuf]) {
        let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo")).join("shim.rs");
        bindgen::Builder::default()
            .header("shim/shim.h")
            .clang_args(includes.iter().map(|dir| format!("-I{}", dir.display())))
            .allowlist_function("mesh_.*")
            .allowlist_recursively(false)
            .allowlist_type("mesh_.*")
            .generate_comments(true)
            .generate()
            .expect("shim.h is a C header")
            .write_to_file(out)
            .expect("OUT_DIR is writable");
    }
}
