//! Lets what the package builds find the native libraries at run time, and be found by instrumented ones, and stops the
//! build with one sentence when they are missing. Used by the root package and by fuzz/, which links them too.
use std::env;
use std::path::{Path, PathBuf};

fn main() {
    // First choice: a `lib` folder beside the program, so that the two can be moved together.
    rpath(Path::new("$ORIGIN/lib"));

    // What instrumented libraries call is looked for in the program first. Here, since cargo-fuzz sets RUSTFLAGS itself.
    println!("cargo::rustc-link-arg=-Wl,--export-dynamic-symbol=__sanitizer_cov_*");

    // The fuzz package cannot see the root package's features, and is only ever built after it:
    // the root package alone complains.
    let root = env::var("CARGO_PKG_NAME").as_deref() == Ok("graphsmith");
    let mut folders = Vec::new();
    if let Some(libtorch) = folder("LIBTORCH") {
        folders.push(("LIBTORCH", libtorch.join("lib")));
    }
    if env::var_os("CARGO_FEATURE_VENDORED_Z3").is_none() {
        folders.extend(folder("Z3_LIBRARY_PATH_OVERRIDE").map(|z3| ("Z3_LIBRARY_PATH_OVERRIDE", z3)));
    }
    for (variable, libraries) in folders {
        let shown = libraries.display();
        if root && !libraries.is_absolute() {
            println!("cargo::error={variable} must be an absolute path: cargo builds crates in different folders");
        } else if root && !libraries.is_dir() {
            println!("cargo::error={shown} (from {variable}) does not exist: run scripts/setup first");
        }
        // Notices that the folder vanishes later, too.
        println!("cargo::rerun-if-changed={shown}");
        rpath(&libraries);
    }

    // Where scripts/setup puts ONNX Runtime, for programs that are started without cargo. On purpose not
    // the value of ORT_DYLIB_PATH: trying another release must not rebuild anything.
    if root {
        let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap());
        let ort = package.join(".native/onnxruntime/libonnxruntime.so");
        println!("cargo::rustc-env=GRAPHSMITH_ORT_DYLIB={}", ort.display());
        compile(Path::new("src/reference/autograd.cpp"));
    }
}

/// C++ against libtorch, which the tch crate compiles and links as well.
fn compile(source: &Path) {
    println!("cargo::rerun-if-changed={}", source.display());
    let headers = folder("LIBTORCH_INCLUDE").or_else(|| folder("LIBTORCH"));
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false).file(source);
    headers.map(|folder| build.include(folder.join("include")));
    if let Err(error) = build.try_compile("graphsmith_autograd") {
        let reason = error.to_string().replace('\n', " ");
        println!("cargo::error={} needs g++ and libtorch's headers: {reason}", source.display());
    }
}

/// The folder named by an environment variable, which is usually set by .cargo/config.toml.
fn folder(variable: &str) -> Option<PathBuf> {
    println!("cargo::rerun-if-env-changed={variable}");
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// `-Xlinker` rather than `-Wl,`: the path may hold a comma.
fn rpath(folder: &Path) {
    for argument in ["-Xlinker", "-rpath", "-Xlinker", &folder.display().to_string()] {
        println!("cargo::rustc-link-arg={argument}");
    }
}
