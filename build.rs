//! Makes every binary, test and bench of this package find libtorch and libz3 where they were linked.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for variable in ["LIBTORCH", "Z3_LIBRARY_PATH_OVERRIDE"] {
        println!("cargo:rerun-if-env-changed={variable}");
        if let Ok(root) = std::env::var(variable) {
            let folder = if variable == "LIBTORCH" { format!("{root}/lib") } else { root };
            println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
        }
    }
}
