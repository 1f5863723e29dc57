//! Searches the built-in runbooks: `cargo run -p wardroom-knowledge --example search`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "an example may unwrap and print")]

use wardroom_knowledge::{Config, Library};

fn main() {
    let library = Library::load(&Config::default()).unwrap();
    for hit in library.search("connections are exhausted since the last release", 3).unwrap() {
        println!("{hit:?}");
    }
}
