//! How the program is linked.

use std::path::Path;
use std::process::Command;

/// The functions of a question from the command line; `cargo xtask bench layout` writes it.
const LAYOUT: &str = "layout.txt";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={LAYOUT}");
    // At a fixed address (ADR 034): half a million pointers are known when it is linked, instead of being read and written
    // at every start.
    if cfg!(target_os = "linux") {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
    // What starts together lies together (ADR 035). The names are those of this profile; what is not there is passed over.
    if variable("PROFILE") == "release" && linked_by_lld() {
        let list = Path::new(&variable("CARGO_MANIFEST_DIR")).join(LAYOUT);
        println!("cargo:rustc-link-arg-bins=-Wl,--symbol-ordering-file={}", list.display());
        println!("cargo:rustc-link-arg-bins=-Wl,--no-warn-symbol-ordering");
    }
}

/// Whether rustc links by the lld that it brings, which is so on this target unless it was built without one or is told otherwise.
/// Other linkers would refuse what they do not know.
#[expect(clippy::disallowed_methods, reason = "a build script asks the compiler")]
fn linked_by_lld() -> bool {
    let target = variable("TARGET");
    let flags = variable("CARGO_ENCODED_RUSTFLAGS");
    let another = !variable("RUSTC_LINKER").is_empty() || ["fuse-ld", "linker"].iter().any(|word| flags.contains(word));
    if target != "x86_64-unknown-linux-gnu" || target != variable("HOST") || another {
        return false;
    }
    let sysroot = Command::new(variable("RUSTC")).args(["--print", "sysroot"]).output();
    let sysroot = sysroot.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    Path::new(&sysroot).join("lib/rustlib").join(target).join("bin/gcc-ld/ld.lld").exists()
}

#[expect(clippy::disallowed_methods, reason = "a build script is told by variables")]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}
